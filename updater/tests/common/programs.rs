//! The program itself, stamped and signed as it ships, on a device of directories.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use firmware_image::updater_image::{Floors, UpdaterVersion};
use release_store::keys::KeySource;
use release_store::publish::PublishRequest;

use super::{PLATFORM, World, passphrase};

/// The updater as it ships: stamped and signed.
pub fn signed(world: &World, version: &str) -> PathBuf {
    let program = fs::read(stripped(world)).unwrap();
    let source = KeySource::open(&world.path("keys")).unwrap();
    let version_number = UpdaterVersion::parse(version).unwrap();
    let image =
        source.updater(Some(&passphrase()), PLATFORM, program, version_number, Floors::default()).unwrap().image;
    let path = world.path(&format!("updater-{version}"));
    fs::write(&path, image).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The built program without what only a debugger wants, where there is a tool for that.
pub fn stripped(world: &World) -> PathBuf {
    let built = PathBuf::from(env!("CARGO_BIN_EXE_updater"));
    let small = world.path("stripped");
    let status = Command::new("strip").arg("-o").arg(&small).arg(&built).status();
    if status.is_ok_and(|status| status.success()) { small } else { built }
}

/// A device of directories, whose `device.cfg` names this server.
pub fn device(servers: &[(String, u16)]) -> (World, PathBuf) {
    let world = World::new();
    world.write_config(servers);
    let hidden = File::create(world.path("hidden.img")).unwrap();
    hidden.set_len(160 << 20).unwrap();
    let program = signed(&world, "1.0.0");
    (world, program)
}

pub fn with_updater(program: &Path) -> impl FnOnce(&mut PublishRequest) {
    let program = program.to_owned();
    move |request| request.updaters.push((PLATFORM.into(), program))
}

pub fn command(world: &World, program: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("--virtual").arg(world.path("virtual"));
    command.arg("--free").arg(world.free());
    command.arg("--hidden").arg(world.path("hidden.img"));
    command.stdin(Stdio::null());
    command
}

pub fn run(world: &World, program: &Path, args: &[&str]) -> Output {
    command(world, program).args(args).output().unwrap()
}

pub fn assert_status(output: &Output, status: i32) {
    assert_eq!(output.status.code(), Some(status), "{}", String::from_utf8_lossy(&output.stderr));
}

pub fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

pub fn reserved_port() -> (std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

pub fn serve_at(world: &World, listener: std::net::TcpListener) -> release_store::serve::Server {
    release_store::serve::serve(listener, &world.store(), Default::default()).unwrap()
}

/// Writes the hidden zone anew, of a size that two backups of this program fit into, so that it is quickly copied.
pub fn small_hidden(world: &World, program: &Path) {
    let backup = fs::metadata(program).unwrap().len() + (1 << 20);
    let bytes = firmware_image::hidden::HiddenLayout::zone_bytes_for(backup, super::ALIGN.into());
    let hidden = File::create(world.path("hidden.img")).unwrap();
    hidden.set_len(bytes).unwrap();
}

/// What a program said on standard error.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
