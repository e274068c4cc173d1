//! The launcher: a sound updater started, a missing one restored.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, ensure};
use firmware_image::Digest;
use firmware_image::backup::{BackupBody, Index};
use firmware_image::device_config::{
    DeviceConfig, MAX_CONFIG_BYTES, Policies, Profile as DeviceProfile, WrappedContentKey,
};
use firmware_image::hidden::{DISK_ALIGN_BYTES, HiddenLayout, HiddenZone, SlotName};
use firmware_image::key_slot::{Cost, Identity};
use firmware_image::paths::{self, THIS_PLATFORM};
use firmware_image::places::Scratch;
use firmware_image::record::VersionRecord;
use firmware_image::seal::{BodyCipher, Purpose, Secret, TAG_BYTES};
use firmware_image::signature::SigningKey;
use firmware_image::slot::{self, Kind};
use firmware_image::storage::MemoryZone;
use firmware_image::updater_image::{self, Floors, KeyCertificate, Statement, UpdaterVersion};

use super::figures::{Table, median, ms, time};
use crate::programs::Programs;
use crate::{run, usage};

const PRODUCT: &str = "Bench";
const UPDATER_BYTES: usize = 8 << 20;

/// A device in three folders and files, with an updater of 8 MiB that only says when it started.
struct Bench {
    launcher: PathBuf,
    dir: PathBuf,
    updater: PathBuf,
    first: PathBuf,
    identity: Identity,
}

/// Adds the launcher's figures.
pub fn measure(programs: &Programs, dir: &Path, rounds: usize, table: &mut Table) -> Result<()> {
    let bench = Bench::set_up(programs, &dir.join("launcher"))?;
    bench.sound(rounds, table)?;
    bench.memory(table)?;
    bench.restore(rounds, table)
}

impl Bench {
    fn set_up(programs: &Programs, dir: &Path) -> Result<Self> {
        let vendor = SigningKey::from_seed(&[1; 32]);
        let key = SigningKey::from_seed(&[2; 32]);
        let secret = Secret::new([3; 32]);
        for zone in ["virtual", "free/.holdfast", "free/client"] {
            fs::create_dir_all(dir.join(zone))?;
        }
        let mut launcher = fs::read(&programs.bootstrap)?;
        firmware_image::stamp::stamp(&mut launcher, &vendor.public())?;
        let launcher_path = dir.join("virtual").join(paths::bootstrap_name(THIS_PLATFORM).as_str());
        fs::write(&launcher_path, launcher)?;
        fs::set_permissions(&launcher_path, fs::metadata(&programs.bootstrap)?.permissions())?;

        let config = DeviceConfig {
            product: PRODUCT,
            channel: "stable",
            profile: DeviceProfile::Stick,
            align_bytes: DISK_ALIGN_BYTES as u32,
            servers: Default::default(),
            client_commands: Default::default(),
            root: b"{}",
            product_secret: *secret.expose(),
            content_key: WrappedContentKey::wrap(1, &Secret::new([5; 32]), &secret),
            policies: Policies::default(),
        };
        let mut out = vec![0; MAX_CONFIG_BYTES];
        fs::write(dir.join("virtual").join(paths::DEVICE_CONFIG), config.sign(&vendor, &mut out)?)?;

        run::show(run::cargo().args([
            "build",
            "--quiet",
            "--release",
            "--package",
            "xtask",
            "--bin",
            "first_instruction",
        ]))?;
        let mut program = fs::read(run::target_dir()?.join("release/first_instruction"))?;
        program.resize(UPDATER_BYTES, 0);
        let statement = Statement {
            product: PRODUCT,
            platform: THIS_PLATFORM,
            version: UpdaterVersion { major: 1, minor: 0, patch: 0 },
            floors: Floors::default(),
        };
        let certificate = KeyCertificate::issue(&vendor, 1, key.public());
        let image = updater_image::sign(program, &statement, &vendor.public(), &certificate, &key)?;
        let updater = dir.join("free").join(paths::updater_name(THIS_PLATFORM).as_str());
        fs::write(&updater, &image)?;

        let mut scratch = Box::new(Scratch::new());
        let identity = Identity::mint(&[7; 64], Cost::UNATTENDED, &secret, &mut scratch.blocks)
            .map_err(|error| anyhow!("identity: {error:?}"))?;
        let zone_bytes = HiddenLayout::zone_bytes_for(16 << 20, DISK_ALIGN_BYTES) as usize;
        let mut bytes = vec![0; zone_bytes];
        let mut zone = HiddenZone::new(MemoryZone::new(&mut bytes), DISK_ALIGN_BYTES)?;
        let record = VersionRecord::new(identity.device_id);
        let mut encoded = vec![0; 4096];
        let encoded = record.encode(&mut encoded).map_err(|_| anyhow!("the record does not fit"))?;
        for name in SlotName::ALL {
            let index = Index::layout([(THIS_PLATFORM, image.len() as u64)].into_iter())
                .map_err(|_| anyhow!("the backup does not fit"))?;
            let mut images = [image.as_slice()];
            let segment_log2 = if name.kind() == Kind::Record { 12 } else { slot::MAX_SEGMENT_LOG2 };
            let write = slot::Write { kind: name.kind(), generation: 1, identity: &identity, segment_log2 };
            let mut place = zone.slot(name)?;
            match name.kind() {
                Kind::Record => write.write(&mut place, &mut &*encoded, &mut scratch.segment)?,
                Kind::Backup => {
                    write.write(&mut place, &mut BackupBody::new(index, &mut images)?, &mut scratch.segment)?
                }
            };
        }
        fs::write(dir.join("hidden"), &bytes)?;
        let first = dir.join("first");
        Ok(Self { launcher: launcher_path, dir: dir.to_path_buf(), updater, first, identity })
    }

    fn launch(&self) -> Command {
        let mut launch = Command::new(&self.launcher);
        launch.arg("--virtual").arg(self.dir.join("virtual"));
        launch.arg("--free").arg(self.dir.join("free")).arg("--hidden").arg(self.dir.join("hidden"));
        launch.arg("--no-client").env("HOLDFAST_FIRST_INSTRUCTION", &self.first);
        launch
    }

    /// From the launcher's start to the updater's first instruction.
    fn to_first_instruction(&self) -> Result<Duration> {
        let start = SystemTime::now();
        let output = run::capture(&mut self.launch())?;
        let said = fs::read_to_string(&self.first)
            .with_context(|| format!("the updater did not run: {}", String::from_utf8_lossy(&output.stderr)))?;
        fs::remove_file(&self.first)?;
        let nanos: u64 = said.split(' ').next().unwrap_or_default().parse()?;
        Ok((SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)).duration_since(start)?)
    }

    fn sound(&self, rounds: usize, table: &mut Table) -> Result<()> {
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for _ in 0..rounds {
            ours.push(self.to_first_instruction()?);
            theirs.push(time(Command::new("sha256sum").arg(&self.updater))?);
        }
        let (ours, theirs) = (median(ours), median(theirs));
        table.add(
            "launcher, sound 8 MiB updater, to its first instruction ÷ sha256sum of the file",
            ours.as_secs_f64() / theirs.as_secs_f64(),
            0.6,
            format!("{} against {}, medians of {rounds}", ms(ours), ms(theirs)),
        );
        Ok(())
    }

    fn memory(&self, table: &mut Table) -> Result<()> {
        let peak = usage::measure(&mut self.launch())?.0.peak_bytes;
        let beside = peak as f64 - fs::metadata(&self.updater)?.len() as f64;
        table.add(
            "launcher, peak memory beside the updater's own bytes (MiB)",
            (beside / 1048576.0).max(0.0),
            4.0,
            format!("{:.1} MiB in all", peak as f64 / 1048576.0),
        );
        Ok(())
    }

    fn restore(&self, rounds: usize, table: &mut Table) -> Result<()> {
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for _ in 0..rounds.min(9) {
            fs::remove_file(&self.updater)?;
            ours.push(self.to_first_instruction()?);
            ensure!(self.updater.exists(), "the launcher restored nothing");
            theirs.push(self.by_hand()?);
        }
        let (ours, theirs) = (median(ours), median(theirs));
        table.add(
            "restore from the hidden zone and start ÷ the same bytes read, decrypted, hashed, written, flushed, read back",
            ours.as_secs_f64() / theirs.as_secs_f64(),
            1.5,
            format!("{} against {}", ms(ours), ms(theirs)),
        );
        Ok(())
    }

    /// What a restore cannot do without, and nothing else.
    fn by_hand(&self) -> Result<Duration> {
        const SEGMENT: usize = 1 << slot::MAX_SEGMENT_LOG2;
        let cipher = BodyCipher::new(&self.identity.device_key, Purpose::Backup, &[0; 32], &Digest::of(b"bench"));
        let mut sealed = Vec::new();
        for (index, piece) in fs::read(&self.updater)?.chunks(SEGMENT).enumerate() {
            let mut piece = piece.to_vec();
            let tag = cipher.seal_segment(index as u32, false, &mut piece);
            sealed.extend_from_slice(&piece);
            sealed.extend_from_slice(&tag);
        }
        let from = self.dir.join("sealed");
        let to = self.dir.join("free/by-hand");
        fs::write(&from, &sealed)?;
        let start = Instant::now();
        let mut input = File::open(&from)?;
        let mut output = File::create(&to)?;
        let mut hasher = firmware_image::digest::Hasher::new();
        let mut buffer = vec![0; SEGMENT + TAG_BYTES];
        for index in 0.. {
            let n = read_full(&mut input, &mut buffer)?;
            if n < TAG_BYTES {
                break;
            }
            let (text, tag) = buffer[..n].split_at_mut(n - TAG_BYTES);
            let tag = (&*tag).try_into().context("a tag")?;
            cipher.open_segment(index, false, text, tag).map_err(|_| anyhow!("a segment does not open"))?;
            hasher.update(text);
            output.write_all(text)?;
        }
        output.sync_data()?;
        rustix::fs::fadvise(&output, 0, None, rustix::fs::Advice::DontNeed)?;
        let mut back = File::open(&to)?;
        back.rewind()?;
        let mut again = firmware_image::digest::Hasher::new();
        loop {
            let n = back.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            again.update(&buffer[..n]);
        }
        let took = start.elapsed();
        let same: (Digest, Digest) = (hasher.finish(), again.finish());
        ensure!(same.0 == same.1, "what was read back differs");
        fs::remove_file(&to)?;
        Ok(took)
    }
}

fn read_full(file: &mut File, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}
