//! What a person may type next, in a demonstration that was kept.

use std::path::Path;

use super::shown_from;
use super::story::Told;

/// Prints the commands.
pub fn print(dir: &Path, told: &Told) {
    let address = told.url.trim_start_matches("http://").trim_end_matches('/');
    println!(
        "
Everything is in {dir}. Go on by hand:

  cd {dir}
  export HOLDFAST_PASSPHRASE=demo
  built/release-store serve store --listen {address} &      # the server, where the device looks for it
  built/partition-tools inspect device.img                    # what stands where, and whether it is sound
  bin/bootstrap-image --device device.img --verbose           # plug it in
  bin/updater --device device.img status                      # what it has, and what alarmed it

Break it, and plug it in again. The free zone starts at 4 MiB, the hidden zone at {hidden} MiB:

  built/partition-tools free rm device.img updater-linux-x86_64
  echo virus | mcopy -o -i device.img@@4M - ::client/VERSION
  dd if=/dev/urandom of=device.img bs=1M seek={hidden} count=8 conv=notrunc

Publish something new, and plug it in again:

  built/release-store publish store --keys keys --release-version 9.9.9 client-{version}
",
        dir = shown_from(dir),
        hidden = told.hidden_mib,
        version = told.version,
    );
}
