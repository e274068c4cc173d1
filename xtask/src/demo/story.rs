//! The steps of the story.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use firmware_image::paths::{self, THIS_PLATFORM};
use firmware_image::signature::PublicKey;
use serde_json::Value;

use crate::corpus::{self, Tree};
use crate::programs::Programs;
use crate::server::Server;
use crate::{run, system};

const PRODUCT: &str = "Field Handbook";
const PASSPHRASE: &str = "demo";
const MIB: u64 = 1 << 20;

/// What a person needs who goes on by hand.
pub struct Told {
    /// Where the device looks for its server.
    pub url: String,
    /// Where the hidden zone starts, in MiB.
    pub hidden_mib: u64,
    /// The newest release's version.
    pub version: String,
}

/// Tells it all; the first check that fails ends it.
pub fn tell(programs: &Programs, dir: &Path) -> Result<Told> {
    let (trees, what) = corpus::client_trees(dir)?;
    println!("The client is {what}.");
    let mut story = Story::set_up(programs, dir, trees)?;
    story.first_plug_in()?;
    story.nothing_to_do()?;
    story.updater_deleted()?;
    story.updater_infected()?;
    story.hidden_zone_wiped()?;
    story.free_zone_formatted()?;
    story.client_infected()?;
    story.new_release()?;
    story.both_zones_destroyed()?;
    story.server_gone()?;
    Ok(Told {
        url: story.server.url.clone(),
        hidden_mib: story.zone("hidden")?.0 / MIB,
        version: story.trees[1].version.clone(),
    })
}

struct Story<'a> {
    programs: &'a Programs,
    dir: PathBuf,
    image: PathBuf,
    launcher: PathBuf,
    updater: String,
    trees: [Tree; 2],
    server: Server,
    steps: usize,
}

/// What a plug-in did, as seen from outside.
struct PlugIn {
    said: String,
    client: String,
    status: Option<i32>,
    took: Duration,
    requests: usize,
    bytes: u64,
    changed: bool,
}

impl<'a> Story<'a> {
    fn set_up(programs: &'a Programs, dir: &Path, trees: [Tree; 2]) -> Result<Self> {
        for name in ["store", "keys", "device.img", "server.log", "bin/updater"] {
            remove(&dir.join(name))?;
        }
        let (store, keys) = (dir.join("store"), dir.join("keys"));
        let mut story = Self {
            programs,
            image: dir.join("device.img"),
            launcher: dir.join("bin/bootstrap-image"),
            updater: paths::updater_name(THIS_PLATFORM).as_str().to_owned(),
            server: Server::default(),
            dir: dir.to_path_buf(),
            trees,
            steps: 0,
        };
        story.step("The vendor makes keys, publishes a release, and a factory writes a device");
        story.tool(&programs.release_store, |tool| {
            tool.arg("init").arg(&store).args(["--product", PRODUCT, "--keys"]).arg(&keys);
        })?;
        let updater = format!("{THIS_PLATFORM}={}", programs.updater.display());
        story.publish(0, Some(&updater))?;
        story.server = Server::start(programs, &store, dir.join("server.log"))?;
        let url = story.server.url.clone();
        let bootstrap = format!("{THIS_PLATFORM}={}", programs.bootstrap.display());
        let took = Instant::now();
        story.tool(&programs.partition_tools, |tool| {
            tool.args(["create", "--profile", "stick", "--size", "256MiB", "--product", PRODUCT, "--out"]);
            tool.arg(dir.join("device.img")).arg("--keys").arg(&keys).args([
                "--server",
                &url,
                "--bootstrap",
                &bootstrap,
            ]);
            tool.args(["--updater", &updater, "--client-command", "client/run.sh"]);
        })?;
        let stored = disk_bytes(&story.image)?;
        story.says("device", &format!("256 MiB image, {} really written, {}", size(stored), seconds(took.elapsed())));
        story.take_programs(&keys)?;
        Ok(story)
    }

    /// Programs trust nobody before they carry the vendor's key: the launcher that opens images is given it here, the
    /// updater got it in the factory.
    fn take_programs(&self, keys: &Path) -> Result<()> {
        let product: Value = serde_json::from_slice(&fs::read(keys.join("product.json"))?)?;
        let vendor = find_key(&product, "vendor").context("product.json names no vendor key")?;
        let mut launcher = fs::read(&self.programs.bootstrap_image)?;
        firmware_image::stamp::stamp(&mut launcher, &vendor)?;
        fs::create_dir_all(self.dir.join("bin"))?;
        write_program(&self.launcher, &launcher)?;
        write_program(&self.dir.join("bin/updater"), &self.virtual_file(&self.updater)?)
    }

    fn first_plug_in(&mut self) -> Result<()> {
        self.step("First plug-in: the device has no client yet");
        let plug = self.plug_in()?;
        self.check("the client runs", plug.client.contains(&self.trees[0].version))?;
        self.check("it came from the server", plug.bytes > 100_000)?;
        self.check_client(0)
    }

    fn nothing_to_do(&mut self) -> Result<()> {
        self.step("Plugged in again: the release has run well, and is noted as proven");
        let plug = self.plug_in()?;
        self.check("the client runs", plug.client.contains(&self.trees[0].version))?;
        self.step("And again: nothing is new, everything is sound");
        let plug = self.plug_in()?;
        self.check("the client runs", plug.client.contains(&self.trees[0].version))?;
        self.check("at most two requests and 2 kB", plug.requests <= 2 && plug.bytes <= 2000)?;
        self.check("not one byte of the device changed", !plug.changed)
    }

    fn updater_deleted(&mut self) -> Result<()> {
        self.step("A careless hand deletes the updater");
        let before = self.free_file(&self.updater)?;
        self.free(&["rm"], &[&self.updater])?;
        let plug = self.plug_in()?;
        self.check("the updater is back, byte for byte", self.free_file(&self.updater)? == before)?;
        self.check("nothing of it was downloaded", plug.bytes <= 2000)?;
        self.check("the client runs", plug.client.contains(&self.trees[0].version))
    }

    fn updater_infected(&mut self) -> Result<()> {
        self.step("A virus writes itself into the updater");
        let before = self.free_file(&self.updater)?;
        let mut infected = before.clone();
        let middle = infected.len() / 2;
        infected[middle..middle + 4096].fill(0x90);
        self.free_put(&self.updater.clone(), &infected)?;
        let plug = self.plug_in()?;
        self.check("the updater is as it was", self.free_file(&self.updater)? == before)?;
        self.check("the infected one never ran: the client runs", plug.client.contains(&self.trees[0].version))
    }

    fn hidden_zone_wiped(&mut self) -> Result<()> {
        self.step("The hidden zone is wiped");
        let hidden = self.zone("hidden")?;
        self.fill(hidden, 0)?;
        self.says("done", &format!("{} of zeros written over it", size(hidden.1)));
        let plug = self.plug_in()?;
        self.check("the client runs", plug.client.contains(&self.trees[0].version))?;
        self.check("no release was downloaded again", plug.bytes <= 20_000)?;
        self.check_sound()
    }

    fn free_zone_formatted(&mut self) -> Result<()> {
        self.step("The free zone is formatted");
        self.format_free()?;
        let plug = self.plug_in()?;
        self.check("the client runs", plug.client.contains(&self.trees[0].version))?;
        self.check("updater and client are back", self.free_file(&self.updater).is_ok())?;
        self.check_client(0)
    }

    fn client_infected(&mut self) -> Result<()> {
        self.step(
            "A virus infects one file of the client, and leaves a program of its own; the user keeps notes there",
        );
        self.free_put("client/handbook/LICENSE", b"infected\n")?;
        self.free_put("client/virus.exe", b"MZ\x90\0not yours")?;
        self.free_put("my notes.txt", b"mine\n")?;
        let plug = self.plug_in()?;
        self.check("the file is repaired", plug.client.contains(&self.trees[0].version))?;
        self.check_client(0)?;
        self.check("the stranger's program is set aside", self.free_file("client/virus.exe").is_err())?;
        self.check("the user's notes are untouched", self.free_file("my notes.txt")? == b"mine\n")?;
        let status = self.updater_says(&["status"])?;
        self.check("the alarm is in the status", status.contains("handbook/LICENSE"))
    }

    fn new_release(&mut self) -> Result<()> {
        self.step("The vendor publishes a new release");
        let whole = self.server.total()?;
        self.publish(1, None)?;
        let plug = self.plug_in()?;
        self.check("the new release runs", plug.client.contains(&self.trees[1].version))?;
        self.check_client(1)?;
        let first = whole.1.max(1);
        self.says("cost", &format!("{} against {} served before", size(plug.bytes), size(first)));
        self.check("the user's notes are untouched", self.free_file("my notes.txt")? == b"mine\n")
    }

    fn both_zones_destroyed(&mut self) -> Result<()> {
        self.step("Hidden and free zone are both destroyed; a person copies one file");
        let updater = self.virtual_file(&self.updater)?;
        let hidden = self.zone("hidden")?;
        self.fill(hidden, 0xff)?;
        self.format_free()?;
        self.free_put(&self.updater.clone(), &updater)?;
        self.says("done", &format!("copied {} from the virtual zone to the free zone", self.updater));
        let plug = self.plug_in()?;
        self.check("the newest release runs", plug.client.contains(&self.trees[1].version))?;
        self.check_client(1)?;
        self.check_sound()
    }

    fn server_gone(&mut self) -> Result<()> {
        self.step("The server is gone, and the updater too");
        self.server.stop();
        self.free(&["rm"], &[&self.updater])?;
        let plug = self.plug_in()?;
        self.check("the updater is back", self.free_file(&self.updater).is_ok())?;
        self.check("the client runs all the same", plug.client.contains(&self.trees[1].version))?;
        self.check("and ends well", plug.status == Some(0))
    }

    // What the steps are made of.

    fn step(&mut self, title: &str) {
        self.steps += 1;
        println!("\n{}. {title}", self.steps);
    }

    fn says(&self, who: &str, text: &str) {
        const MOST: usize = 14;
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let (first, last) = if lines.len() > MOST { (4, 6) } else { (lines.len(), 0) };
        for (i, line) in lines.iter().take(first).enumerate() {
            println!("   {:<8} {line}", if i == 0 { who } else { "" });
        }
        if last > 0 {
            println!("   {:<8} … {} more lines …", "", lines.len() - first - last);
            lines[lines.len() - last..].iter().for_each(|line| println!("   {:<8} {line}", ""));
        }
    }

    fn check(&self, what: &str, holds: bool) -> Result<()> {
        println!("   {:<8} {what}", if holds { "ok" } else { "NOT SO" });
        ensure!(holds, "step {}: expected that {what}", self.steps);
        Ok(())
    }

    fn check_client(&self, release: usize) -> Result<()> {
        let tree = &self.trees[release];
        let mut files = 0;
        for file in walk(&tree.path)? {
            let relative = file.strip_prefix(&tree.path)?.to_string_lossy().replace('\\', "/");
            let on_device = self.free_file(&format!("client/{relative}"))?;
            if on_device != fs::read(&file)? {
                return self.check(&format!("client/{relative} is that of {}", tree.version), false);
            }
            files += 1;
        }
        self.check(&format!("all {files} files are those of {}", tree.version), true)
    }

    fn check_sound(&self) -> Result<()> {
        let verified = self.run_tool(&self.programs.partition_tools, |tool| {
            tool.arg("verify").arg(&self.image);
        })?;
        self.check("partition-tools verify finds the device sound", verified.0)
    }

    fn plug_in(&mut self) -> Result<PlugIn> {
        let before = self.server.total()?;
        let image_before = digest(&self.image)?;
        let start = Instant::now();
        let mut launch = Command::new(&self.launcher);
        launch.arg("--device").arg(&self.image);
        let output = run::capture(&mut launch)?;
        let took = start.elapsed();
        let after = self.server.total()?;
        let plug = PlugIn {
            said: String::from_utf8_lossy(&output.stderr).into_owned(),
            client: String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            status: output.status.code(),
            took,
            requests: after.0 - before.0,
            bytes: after.1 - before.1,
            changed: digest(&self.image)? != image_before,
        };
        self.says("device", &plug.said);
        self.says("client", &plug.client);
        self.says("cost", &format!("{} requests, {}, {}", plug.requests, size(plug.bytes), seconds(plug.took)));
        Ok(plug)
    }

    fn publish(&self, release: usize, updater: Option<&str>) -> Result<()> {
        let tree = &self.trees[release];
        self.tool(&self.programs.release_store, |tool| {
            tool.arg("publish").arg(self.dir.join("store")).arg("--keys").arg(self.dir.join("keys"));
            tool.args(["--release-version", &tree.version]);
            if let Some(updater) = updater {
                tool.args(["--updater", updater]);
            }
            tool.arg(&tree.path);
        })
    }

    /// Runs a tool and shows what it says.
    fn tool(&self, program: &Path, arguments: impl FnOnce(&mut Command)) -> Result<()> {
        let (good, said) = self.run_tool(program, arguments)?;
        self.says("done", &said);
        ensure!(good, "{} failed", program.display());
        Ok(())
    }

    fn run_tool(&self, program: &Path, arguments: impl FnOnce(&mut Command)) -> Result<(bool, String)> {
        let mut tool = Command::new(program);
        tool.env("HOLDFAST_PASSPHRASE", PASSPHRASE);
        arguments(&mut tool);
        let output = run::capture(&mut tool)?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    }

    fn updater_says(&self, arguments: &[&str]) -> Result<String> {
        let updater = self.dir.join("bin/updater");
        let (_, said) = self.run_tool(&updater, |tool| {
            tool.arg("--device").arg(&self.image).args(arguments);
        })?;
        self.says("status", &said);
        Ok(said)
    }

    fn free(&self, verb: &[&str], arguments: &[&str]) -> Result<()> {
        let mut tool = Command::new(&self.programs.partition_tools);
        tool.arg("free").args(verb).arg(&self.image).args(arguments);
        self.says("done", &format!("partition-tools free {} device.img {}", verb.join(" "), arguments.join(" ")));
        run::text(&mut tool).map(drop)
    }

    fn free_file(&self, path: &str) -> Result<Vec<u8>> {
        self.file_of("free", path)
    }

    fn virtual_file(&self, path: &str) -> Result<Vec<u8>> {
        self.file_of("virtual", path)
    }

    fn file_of(&self, zone: &str, path: &str) -> Result<Vec<u8>> {
        let mut tool = Command::new(&self.programs.partition_tools);
        tool.args([zone, "cat"]).arg(&self.image).arg(path);
        let output = run::capture(&mut tool)?;
        if !output.status.success() {
            bail!("no {path} in the {zone} zone: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(output.stdout)
    }

    fn free_put(&self, path: &str, content: &[u8]) -> Result<()> {
        let file = self.dir.join("put");
        fs::write(&file, content)?;
        let mut tool = Command::new(&self.programs.partition_tools);
        tool.args(["free", "put"]).arg(&self.image).arg(&file).arg(path);
        self.says("done", &format!("{} written to {path}", size(content.len() as u64)));
        run::text(&mut tool)?;
        remove(&file)
    }

    /// A quick format, as any computer does it.
    fn format_free(&self) -> Result<()> {
        let (start, length) = self.zone("free")?;
        if let Some(mkfs) = system::find("mkfs.vfat") {
            let mut format = Command::new(mkfs);
            format.args(["-F", "32", "-n", "USB STICK", "--offset"]).arg((start / 512).to_string());
            format.arg(&self.image).arg((length / 1024).to_string());
            run::text(&mut format)?;
            self.says("done", "mkfs.vfat -F 32 over the free zone");
        } else {
            self.tool(&self.programs.partition_tools, |tool| {
                tool.args(["free", "format"]).arg(&self.image);
            })?;
        }
        Ok(())
    }

    /// A zone's first byte and length in the image.
    fn zone(&self, name: &str) -> Result<(u64, u64)> {
        let mut tool = Command::new(&self.programs.partition_tools);
        let inspected: Value = serde_json::from_str(&run::text(tool.arg("inspect").arg(&self.image).arg("--json"))?)?;
        let zones = inspected["zones"].as_array().context("inspect names no zones")?;
        let zone = zones.iter().find(|zone| zone["zone"] == name).with_context(|| format!("no {name} zone"))?;
        let number = |field: &str| zone[field].as_u64().with_context(|| format!("inspect gives no {field} of {name}"));
        Ok((number("start")?, number("bytes")?))
    }

    fn fill(&self, (start, length): (u64, u64), byte: u8) -> Result<()> {
        let mut image = fs::OpenOptions::new().write(true).open(&self.image)?;
        image.seek(SeekFrom::Start(start))?;
        let block = vec![byte; MIB as usize];
        let mut left = length;
        while left > 0 {
            let take = left.min(MIB);
            image.write_all(&block[..take as usize])?;
            left -= take;
        }
        Ok(())
    }
}

fn write_program(path: &Path, bytes: &[u8]) -> Result<()> {
    remove(path)?;
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    fs::write(path, bytes)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

fn find_key(value: &Value, name: &str) -> Option<PublicKey> {
    let entry = value.as_object()?.iter().find(|(key, _)| key.contains(name))?.1;
    let text = entry.as_str().or_else(|| entry["public"].as_str()).or_else(|| entry["key"].as_str())?;
    firmware_image::Digest::from_hex(text).map(|bytes| PublicKey(bytes.0))
}

fn walk(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { files.extend(walk(&path)?) } else { files.push(path) }
    }
    files.sort();
    Ok(files)
}

fn digest(path: &Path) -> Result<firmware_image::Digest> {
    let mut file = fs::File::open(path)?;
    let mut hasher = firmware_image::digest::Hasher::new();
    let mut buffer = vec![0; MIB as usize];
    loop {
        match std::io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok(hasher.finish()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

fn disk_bytes(path: &Path) -> Result<u64> {
    Ok(std::os::unix::fs::MetadataExt::blocks(&fs::metadata(path)?) * 512)
}

fn remove(path: &Path) -> Result<()> {
    let gone = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match gone {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
