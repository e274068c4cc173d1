//! What a person may type next, in a demonstration that was kept.

use std::path::Path;

use super::shown_from;

/// Prints the commands; `url` is where the device looks for its server.
pub fn print(dir: &Path, url: &str) {
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    println!(
        "
Everything is in {dir}. Go on by hand:

  cd {dir}
  export HOLDFAST_PASSPHRASE=demo
  built/release-store serve store --listen {address} &        # the server, where the device looks for it
  built/partition-tools inspect device.img                      # what stands where, and whether it is sound
  bin/bootstrap-image --device device.img --verbose             # plug it in
  bin/updater --device device.img status                        # what it has, and what alarmed it

Break it, and plug it in again. The free zone starts at 4 MiB; inspect --json tells where the others are:

  built/partition-tools free rm device.img updater-linux-x86_64
  echo virus | mcopy -o -i device.img@@4M - ::client/VERSION
  mformat -F -i device.img@@4M ::                               # format the free zone
  dd if=/dev/urandom of=device.img bs=1M seek=$(({hidden})) count=8 conv=notrunc   # into the hidden zone

Publish something new, and plug it in again:

  built/release-store publish store --keys keys --release-version 9.9.9 client-*.52
",
        dir = shown_from(dir),
        hidden =
            "$(built/partition-tools inspect device.img --json | grep -A9 hidden | grep start | tr -dc 0-9) / 1048576",
    );
}
