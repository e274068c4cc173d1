//! `cargo xtask microcontroller`: the programs in `embedded/` on an emulated Cortex-M4. A device as the factory makes it
//! loses its application and its copies, one after the other; power is cut at every write of a restore; and what the
//! bootstrap takes of flash and memory is held against its limits.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use firmware_image::backup::{BackupBody, Index};
use firmware_image::device_config::{DeviceConfig, MAX_CONFIG_BYTES, Policies, Profile, WrappedContentKey};
use firmware_image::hidden::{HiddenZone, SlotName};
use firmware_image::key_slot::Identity;
use firmware_image::places::Scratch;
use firmware_image::record::VersionRecord;
use firmware_image::region::factory::Factory;
use firmware_image::seal::Secret;
use firmware_image::signature::SigningKey;
use firmware_image::sim::figures;
use firmware_image::slot::{self, Body, SlotError};
use firmware_image::stamp;
use firmware_image::storage::{MemoryZone, SliceReader};
use firmware_image::updater_image::{
    Floors, IMAGE_ALIGN, KeyCertificate, MAX_TRAILER_BYTES, Statement, UpdaterVersion, make_trailer, read_trailer,
};
use table::{FLASH_BYTES, LAYOUT, PLATFORM, RECORD_BYTES, SEGMENT_LOG2, UNLOCK_COST};

use crate::figures::Figures;
use crate::{run, system};

#[path = "../../embedded/device/src/table.rs"]
pub mod table;

#[path = "../../embedded/device/src/handover.rs"]
#[allow(dead_code)] // Nobody speaks here.
mod handover;

const TARGET: &str = "thumbv7em-none-eabihf";
const QEMU: &str = "qemu-system-arm";
/// The generation of what the application seals.
const SECOND_GENERATION: u64 = 2;
const PRODUCT: &str = "Pump Controller";
/// Where the board has the device's flash, and the copy that the sweep begins from.
const FLASH_AT: u32 = 0x2100_0000;
const COPY_AT: u32 = 0x2180_0000;
/// What the bootstrap may take, in bytes.
const MAX_FLASH: u64 = 64 << 10;
const MAX_RAM: u64 = 24 << 10;
/// Longest run of an emulated machine.
const MAX_RUN: Duration = Duration::from_secs(1800);

/// The same code on this computer, then everything on the emulated processor, or the reason why that cannot be had here; `full`:
/// every second cut on this computer, not a sample.
pub fn run(figures: &Figures, full: bool) -> Result<()> {
    let mut cargo = run::cargo();
    cargo.current_dir(run::root().join("embedded")).env("CARGO_TARGET_DIR", run::target_dir()?.join("embedded"));
    if full {
        cargo.env("HOLDFAST_FULL", "1");
    }
    figures.counting(&mut cargo);
    run::show(cargo.args(["test", "--quiet", "--locked", "-p", "holdfast-device", "--", "--nocapture"]))?;
    emulated(figures)
}

fn emulated(figures: &Figures) -> Result<()> {
    const SUBJECT: &str = "a microcontroller, emulated";
    if system::find(QEMU).is_none() {
        return figures.skip(SUBJECT, &format!("{QEMU} is missing (Debian package {QEMU})"));
    }
    let toolchain = match Toolchain::find()? {
        Ok(toolchain) => toolchain,
        Err(reason) => return figures.skip(SUBJECT, &reason),
    };
    let keys = Keys::new();
    let programs = toolchain.build()?;
    let dir = tempfile::tempdir()?;
    let bootstrap = keys.stamped(&programs.join("holdfast-bootstrap"), dir.path())?;
    let sweep = keys.stamped(&programs.join("holdfast-sweep"), dir.path())?;
    let program = loadable(&std::fs::read(programs.join("holdfast-application"))?)?;
    let factory = keys.device(&keys.application(&program, 0)?)?;
    let next = keys.application(&program, 1)?;
    let mut sealed = factory.clone();
    keys.seal_backup_b(&mut sealed, &next)?;
    let mut raised = sealed.clone();
    keys.raise_floors(&mut raised, &next)?;
    let machine = Machine { dir: dir.path(), factory: &factory };

    let mut stack = 0;
    for case in CASES {
        let mut device = match case.device {
            Made::Factory => factory.clone(),
            Made::Sealed => sealed.clone(),
            Made::Raised => raised.clone(),
        };
        (case.damage)(&mut device);
        let said = machine
            .run(&bootstrap, &device, case.said, case.succeeds)
            .with_context(|| format!("{}: failed", case.name))?;
        for line in case.says {
            ensure!(said.lines().any(|said| said == *line), "{}: nobody said {line:?}:\n{said}", case.name);
        }
        let used = said.lines().find_map(|line| line.strip_prefix("bootstrap: stack ")?.strip_suffix(" bytes"));
        stack = stack.max(used.context("nobody said how deep the stack was")?.parse::<u64>()?);
    }
    eprintln!("{} devices: sound, damaged, updated: all as they should be", CASES.len());

    let sizes = Sizes::read(&std::fs::read(&bootstrap)?)?;
    eprintln!("flash {} bytes of {MAX_FLASH}", sizes.flash);
    let ram = sizes.ram + stack;
    eprintln!("RAM {ram} bytes of {MAX_RAM}: {} static, stack {stack}; Argon2 {} more", sizes.ram, sizes.blocks);
    ensure!(sizes.flash <= MAX_FLASH, "the bootstrap takes {} bytes of flash", sizes.flash);
    // A stack that was used to its last word may have run over.
    ensure!(ram < MAX_RAM, "the bootstrap takes {ram} bytes of memory, or more");

    let start = Instant::now();
    let said = machine.run(&sweep, &factory, handover::NOTHING, true)?;
    eprintln!("{}{:.1} s for the sweep", said, start.elapsed().as_secs_f64());
    let states = said.lines().find_map(|line| line.strip_prefix("sweep: ")?.split_once(" states, 0 not healed"));
    let states = states.context("nobody said how many states healed")?.0.parse()?;
    figures.add(figures::CUT_STATES, states, 0)
}

/// A device that is started once.
struct Case {
    name: &'static str,
    device: Made,
    /// What the application said before the reset.
    said: u32,
    damage: fn(&mut [u8]),
    succeeds: bool,
    says: &'static [&'static str],
}

/// What a device has behind it.
enum Made {
    /// The factory: version 1.0.0.
    Factory,
    /// The application sealed version 1.1.0 into backup B.
    Sealed,
    /// And raised the floors to it.
    Raised,
}

const CASES: &[Case] = &[
    Case {
        name: "sound",
        device: Made::Factory,
        said: handover::NOTHING,
        damage: |_| {},
        succeeds: true,
        says: &["bootstrap: application 1.0.0 is sound", "bootstrap: 0 flash operations", "application: runs"],
    },
    Case {
        name: "application erased",
        device: Made::Factory,
        said: handover::NOTHING,
        damage: |device| region(device, LAYOUT.application).fill(0xff),
        succeeds: true,
        says: &[
            "bootstrap: application: missing",
            "bootstrap: application 1.0.0 restored from backup A",
            "application: runs",
        ],
    },
    Case {
        name: "application damaged, backup A too",
        device: Made::Factory,
        said: handover::NOTHING,
        damage: |device| {
            region(device, LAYOUT.application)[4000] ^= 1;
            backup(device, 0)[4096 + 9000] ^= 1;
        },
        succeeds: true,
        says: &[
            "bootstrap: application: damaged",
            "bootstrap: backup A: does not open",
            "bootstrap: application 1.0.0 restored from backup B",
            "application: runs",
        ],
    },
    Case {
        name: "application gone, hidden zone erased",
        device: Made::Factory,
        said: handover::NOTHING,
        damage: |device| {
            region(device, LAYOUT.application).fill(0);
            region(device, LAYOUT.hidden).fill(0xff);
        },
        succeeds: true,
        says: &["bootstrap: application 1.0.0 restored from factory copy", "application: runs"],
    },
    Case {
        name: "sealed its successor, and asked for nothing",
        device: Made::Sealed,
        said: !0,
        damage: |_| {},
        succeeds: true,
        says: &["bootstrap: application 1.0.0 is sound", "bootstrap: 0 flash operations", "application: runs"],
    },
    Case {
        name: "sealed its successor, and asked for it",
        device: Made::Sealed,
        said: handover::INSTALL_NEWER,
        damage: |_| {},
        succeeds: true,
        says: &["bootstrap: application 1.1.0 restored from backup B", "application: runs"],
    },
    Case {
        name: "sealed a successor that is damaged, and asked for it",
        device: Made::Sealed,
        said: handover::INSTALL_NEWER,
        damage: |device| backup(device, 1)[4096 + 9000] ^= 1,
        succeeds: true,
        says: &[
            "bootstrap: backup B: does not open",
            "bootstrap: application 1.0.0 is sound",
            "bootstrap: 0 flash operations",
            "application: runs",
        ],
    },
    Case {
        name: "below the floors, and nothing newer left",
        device: Made::Raised,
        said: handover::NOTHING,
        damage: |device| backup(device, 1).fill(0xff),
        succeeds: true,
        says: &[
            "bootstrap: application: too old",
            "bootstrap: application 1.0.0 is sound",
            "application: must fetch a newer one",
            "application: runs",
        ],
    },
    Case {
        name: "no copy left",
        device: Made::Factory,
        said: handover::NOTHING,
        damage: |device| {
            region(device, LAYOUT.application).fill(0);
            region(device, LAYOUT.factory)[100] ^= 8;
            backup(device, 0)[4096 + 9000] ^= 1;
            backup(device, 1)[4096 + 9000] ^= 1;
        },
        succeeds: false,
        says: &["bootstrap: nothing may run"],
    },
];

fn region(device: &mut [u8], extent: firmware_image::region::Extent) -> &mut [u8] {
    &mut device[extent.start as usize..(extent.start + extent.length) as usize]
}

fn backup(device: &mut [u8], which: usize) -> &mut [u8] {
    let align = LAYOUT.align_bytes as usize;
    let backups = &mut region(device, LAYOUT.hidden)[2 * align..];
    let length = backups.len() / 2;
    &mut backups[which * length..(which + 1) * length]
}

/// The vendor's and the factory's secrets.
struct Keys {
    vendor: SigningKey,
    updater: SigningKey,
    product_secret: Secret,
}

impl Keys {
    fn new() -> Self {
        Self {
            vendor: SigningKey::from_seed(&[1; 32]),
            updater: SigningKey::from_seed(&[2; 32]),
            product_secret: Secret::new([3; 32]),
        }
    }

    /// A program with the vendor's key in it.
    fn stamped(&self, program: &Path, dir: &Path) -> Result<PathBuf> {
        let mut bytes = std::fs::read(program).with_context(|| format!("{} was not built", program.display()))?;
        stamp::stamp(&mut bytes, &self.vendor.public())?;
        let path = dir.join(program.file_name().context("a program without a name")?);
        std::fs::write(&path, bytes)?;
        Ok(path)
    }

    /// The application, signed as version 1.`minor`.0, behind which none may go back.
    fn application(&self, program: &[u8], minor: u16) -> Result<Vec<u8>> {
        let mut image = program.to_vec();
        image.resize(image.len().next_multiple_of(IMAGE_ALIGN), 0);
        let certificate = KeyCertificate::issue(&self.vendor, 1, self.updater.public());
        let version = UpdaterVersion { major: 1, minor, patch: 0 };
        let floors = Floors { version, key_serial: 1 };
        let statement = Statement { product: PRODUCT, platform: PLATFORM, version, floors };
        let mut trailer = [0; MAX_TRAILER_BYTES];
        let trailer = make_trailer(&image, &statement, &certificate, &self.updater, &mut trailer)
            .map_err(|error| anyhow!("the application cannot be signed: {error}"))?;
        image.extend_from_slice(trailer);
        Ok(image)
    }

    /// Who the device is.
    fn identity(&self, scratch: &mut Scratch) -> Result<Identity> {
        let random = std::array::from_fn(|i| i as u8);
        Identity::mint(&random, UNLOCK_COST, &self.product_secret, &mut scratch.blocks)
            .map_err(|error| anyhow!("identity: {error:?}"))
    }

    /// What an application does that has received its successor.
    fn seal_backup_b(&self, flash: &mut [u8], image: &[u8]) -> Result<()> {
        let index = Index::layout([(PLATFORM, image.len() as u64)].into_iter());
        let mut images = [image];
        let body = BackupBody::new(index.map_err(|error| anyhow!("index: {error:?}"))?, &mut images);
        self.seal(flash, SlotName::BackupB, &mut body.map_err(|error| anyhow!("backup: {error}"))?)
    }

    /// What an application does that has shown that it works.
    fn raise_floors(&self, flash: &mut [u8], image: &[u8]) -> Result<()> {
        let mut trailer = [0; MAX_TRAILER_BYTES];
        let trailer = read_trailer(&mut SliceReader::new(image), image.len() as u64, &mut trailer)
            .map_err(|error| anyhow!("trailer: {error}"))?;
        let mut record = VersionRecord::new(self.identity(&mut Box::<Scratch>::default())?.device_id);
        record.backup_generation = SECOND_GENERATION;
        record.statement = trailer;
        let mut bytes = [0; RECORD_BYTES];
        let mut encoded = record.encode(&mut bytes).map_err(|error| anyhow!("record: {error:?}"))?;
        self.seal(flash, SlotName::RecordA, &mut encoded)
    }

    fn seal(&self, flash: &mut [u8], slot: SlotName, body: &mut dyn Body) -> Result<()> {
        let mut scratch = Box::<Scratch>::default();
        let identity = self.identity(&mut scratch)?;
        let write = slot::Write {
            kind: slot.kind(),
            generation: SECOND_GENERATION,
            identity: &identity,
            segment_log2: SEGMENT_LOG2,
        };
        let hidden = LAYOUT.hidden.of(MemoryZone::new(flash)).map_err(|error| anyhow!("hidden zone: {error}"))?;
        HiddenZone::new(hidden, LAYOUT.align_bytes.into())
            .map_err(SlotError::from)
            .and_then(|mut hidden| write.write(&mut hidden.slot(slot)?, body, &mut scratch.segment))
            .map_err(|error| anyhow!("{slot} cannot be sealed: {error}"))?;
        Ok(())
    }

    /// The device's flash as the factory writes it.
    fn device(&self, application: &[u8]) -> Result<Vec<u8>> {
        let config = DeviceConfig {
            product: PRODUCT,
            channel: "stable",
            profile: Profile::Region,
            align_bytes: LAYOUT.align_bytes,
            servers: Default::default(),
            client_commands: Default::default(),
            root: &[],
            product_secret: *self.product_secret.expose(),
            content_key: WrappedContentKey::wrap(1, &Secret::new([4; 32]), &self.product_secret),
            policies: Policies::default(),
        };
        let mut signed = vec![0; MAX_CONFIG_BYTES];
        let config = config.sign(&self.vendor, &mut signed).map_err(|error| anyhow!("configuration: {error}"))?;
        let mut scratch = Box::<Scratch>::default();
        let identity = self.identity(&mut scratch)?;
        let mut flash = vec![0xff; FLASH_BYTES as usize];
        let factory = Factory {
            layout: LAYOUT,
            config,
            platform: PLATFORM,
            application,
            identity: &identity,
            segment_log2: SEGMENT_LOG2,
        };
        factory
            .write(&mut MemoryZone::new(&mut flash), &mut scratch.memory(), &mut [0; RECORD_BYTES])
            .map_err(|error| anyhow!("the device cannot be made: {error}"))?;
        Ok(flash)
    }
}

/// The emulated board.
struct Machine<'a> {
    dir: &'a Path,
    factory: &'a [u8],
}

impl Machine<'_> {
    /// Starts `program` beside a flash with what `device` holds, after the application said `word`; what it said, if it ended as
    /// it should.
    fn run(&self, program: &Path, device: &[u8], word: u32, succeeds: bool) -> Result<String> {
        let (flash, copy) = (self.dir.join("device.img"), self.dir.join("factory.img"));
        std::fs::write(&flash, device)?;
        std::fs::write(&copy, self.factory)?;
        let loader = |file: &Path, at: u32| format!("loader,file={},addr={at:#x},force-raw=on", file.display());
        let (said, errors) = (self.dir.join("said"), self.dir.join("errors"));
        let mut qemu = Command::new(QEMU);
        qemu.args(["-M", "mps2-an386", "-nographic", "-monitor", "none", "-serial", "none"])
            .args(["-semihosting-config", "enable=on,target=native", "-kernel"])
            .arg(program)
            .args(["-device", &loader(&flash, FLASH_AT), "-device", &loader(&copy, COPY_AT)])
            .args(["-device", &format!("loader,addr={:#x},data={word:#x},data-len=4", handover::AT)])
            .stdin(std::process::Stdio::null())
            .stdout(std::fs::File::create(&said)?)
            .stderr(std::fs::File::create(&errors)?);
        let mut child = qemu.spawn().with_context(|| format!("cannot start {QEMU}"))?;
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if start.elapsed() > MAX_RUN {
                child.kill()?;
                child.wait()?;
                break None;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        // HostStream writes to standard output, QEMU's own complaints go to standard error.
        let said = String::from_utf8_lossy(&std::fs::read(&said)?).into_owned();
        let errors = String::from_utf8_lossy(&std::fs::read(&errors)?).into_owned();
        match status {
            Some(status) if status.success() == succeeds && status.code().is_some() => Ok(said + &errors),
            Some(status) => bail!("it ended with {status}:\n{said}{errors}"),
            None => bail!("it did not end within {} s:\n{said}{errors}", MAX_RUN.as_secs()),
        }
    }
}

/// What builds for the microcontroller.
struct Toolchain {
    /// Debian's compiler, where the one that runs this has no sources of the library.
    rustc: Option<&'static str>,
    linker: PathBuf,
}

impl Toolchain {
    const DEBIAN: &str = "/usr/bin/rustc";

    /// A compiler with the library's sources, which is built anew for size; or why there is none.
    fn find() -> Result<std::result::Result<Self, String>> {
        let sysroot = |rustc: &str| -> Result<PathBuf> {
            Ok(PathBuf::from(run::text(Command::new(rustc).args(["--print", "sysroot"]))?.trim()))
        };
        let has_sources =
            |rustc: &str| sysroot(rustc).is_ok_and(|root| root.join("lib/rustlib/src/rust/library").is_dir());
        let own = sysroot("rustc")?;
        let rustc = if has_sources("rustc") {
            None
        } else if Path::new(Self::DEBIAN).exists() && has_sources(Self::DEBIAN) {
            Some(Self::DEBIAN)
        } else {
            return Ok(Err(format!(
                "the library's sources, to build it for {TARGET}, are missing (rustup component add rust-src; \
                 Debian packages rustc-web and rust-web-src)"
            )));
        };
        let rustlib = own.join("lib/rustlib");
        let lld = std::fs::read_dir(&rustlib)?
            .flatten()
            .map(|entry| entry.path().join("bin/rust-lld"))
            .find(|path| path.is_file())
            .or_else(|| system::find("rust-lld"))
            .or_else(Self::elsewhere);
        Ok(lld.map(|linker| Self { rustc, linker }).ok_or_else(|| "rust-lld is missing".to_owned()))
    }

    /// The linker of any other toolchain that rustup has here.
    fn elsewhere() -> Option<PathBuf> {
        let home = std::env::var_os("RUSTUP_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".rustup")))?;
        let toolchains = std::fs::read_dir(home.join("toolchains")).ok()?.flatten();
        let libraries = toolchains.filter_map(|entry| std::fs::read_dir(entry.path().join("lib/rustlib")).ok());
        libraries.flatten().flatten().map(|entry| entry.path().join("bin/rust-lld")).find(|path| path.is_file())
    }

    /// Builds all three programs; where they are.
    fn build(&self) -> Result<PathBuf> {
        let target_dir = run::target_dir()?.join("embedded");
        let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
        let mut flags = vec![
            format!("-Clinker={}", self.linker.display()),
            "-Clink-arg=--icf=all".into(),
            "--cfg=aes_backend_soft=\"compact\"".into(),
            "--cfg=sha2_backend_soft=\"compact\"".into(),
            // Where a panic happened stands in the program, and needs not tell where it was built.
            format!("--remap-path-prefix={}/=", run::root().display()),
        ];
        for registry in
            cargo_home.or(home).and_then(|home| std::fs::read_dir(home.join("registry/src")).ok()).into_iter().flatten()
        {
            flags.push(format!("--remap-path-prefix={}/=", registry?.path().display()));
        }
        // One by one, so that the bootstrap's short vector table stays its own.
        for program in ["holdfast-bootstrap", "holdfast-sweep", "holdfast-application"] {
            let mut cargo = run::cargo();
            cargo
                .current_dir(run::root().join("embedded"))
                .args(["build", "--quiet", "--release", "--locked", "--target", TARGET, "-p", program])
                .args(["-Zbuild-std=core", "-Zbuild-std-features=optimize_for_size"])
                .env("CARGO_TARGET_DIR", &target_dir)
                .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
                .env("RUSTC_BOOTSTRAP", "1");
            if let Some(rustc) = self.rustc {
                cargo.env("RUSTC", rustc);
            }
            run::show(&mut cargo)?;
        }
        Ok(target_dir.join(TARGET).join("release"))
    }
}

/// What a program takes.
struct Sizes {
    flash: u64,
    ram: u64,
    blocks: u64,
}

impl Sizes {
    /// Adds up the sections of an ELF file: what is loaded is flash, what stands in memory is RAM.
    fn read(elf: &[u8]) -> Result<Self> {
        let mut sizes = Self { flash: 0, ram: 0, blocks: 0 };
        for section in sections(elf)? {
            if !section.is_allocated {
                continue;
            }
            if section.has_content {
                sizes.flash += section.bytes;
            }
            if section.name == ".blocks" {
                sizes.blocks += section.bytes;
            } else if section.address >= 0x2000_0000 {
                sizes.ram += section.bytes;
            }
        }
        ensure!(sizes.flash > 0 && sizes.ram > 0, "the program's sections make no sense");
        Ok(sizes)
    }
}

struct Section {
    name: String,
    address: u64,
    offset: usize,
    bytes: u64,
    is_allocated: bool,
    has_content: bool,
}

/// The sections of a 32-bit little-endian ELF file (System V ABI, chapter 4).
fn sections(elf: &[u8]) -> Result<Vec<Section>> {
    let word = |at: usize| -> Result<usize> {
        let bytes = elf.get(at..at + 4).context("a truncated ELF file")?;
        Ok(u32::from_le_bytes(bytes.try_into()?) as usize)
    };
    let half = |at: usize| word(at).map(|word| word & 0xffff);
    ensure!(elf.starts_with(b"\x7fELF\x01\x01"), "not a 32-bit little-endian ELF file");
    let (table, entry, count, names) = (word(32)?, half(46)?, half(48)?, half(50)?);
    let names = word(table + names * entry + 16)?;
    (0..count)
        .map(|i| {
            let at = table + i * entry;
            let name = elf.get(names + word(at)?..).context("a section's name is outside the file")?;
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            Ok(Section {
                name: String::from_utf8_lossy(name).into_owned(),
                address: word(at + 12)? as u64,
                offset: word(at + 16)?,
                bytes: word(at + 20)? as u64,
                is_allocated: word(at + 8)? & 2 != 0,
                // SHT_NOBITS takes no room in the file.
                has_content: word(at + 4)? != 8,
            })
        })
        .collect()
}

/// What is to be programmed of an ELF file, from its first address on.
fn loadable(elf: &[u8]) -> Result<Vec<u8>> {
    let mut loaded: Vec<Section> = sections(elf)?;
    loaded.retain(|section| section.is_allocated && section.has_content && section.bytes > 0);
    loaded.sort_by_key(|section| section.address);
    let start = loaded.first().context("nothing to load")?.address;
    ensure!(start == u64::from(FLASH_AT) + LAYOUT.application.start, "the application is linked for {start:#x}");
    let mut image = Vec::new();
    for section in loaded {
        image.resize((section.address - start) as usize, 0xff);
        let bytes = elf.get(section.offset..section.offset + section.bytes as usize);
        image.extend_from_slice(bytes.context("a section is outside the file")?);
    }
    Ok(image)
}
