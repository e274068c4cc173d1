//! What a person may type next, in a demonstration that was kept.

use std::path::Path;

use super::shown_from;

/// Prints the commands.
pub fn print(dir: &Path) {
    println!(
        "
Everything is in {dir}. Go on by hand:

  cd {dir}
  export HOLDFAST_PASSPHRASE=demo
  bin/release-store serve store --listen 127.0.0.1:8080 &     # the server (the image asks at this address)
  bin/partition-tools inspect device.img                      # what stands where
  bin/bootstrap-image --device device.img --verbose           # plug it in

Break it, and plug it in again:

  bin/partition-tools free ls device.img
  bin/partition-tools free rm device.img updater-linux-x86_64
  mcopy -i device.img@@4M ::client/VERSION - ; echo virus | mcopy -o -i device.img@@4M - ::client/VERSION
  dd if=/dev/urandom of=device.img bs=1M seek=$((HIDDEN / 1048576)) count=8 conv=notrunc   # HIDDEN: see inspect

Publish something new:

  bin/release-store publish store --keys keys --release-version 9.9.9 client-0.4.51
",
        dir = shown_from(dir)
    );
}
