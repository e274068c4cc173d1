#!/bin/sh
# Starts this device's launcher. Desktops offer to run this file when the device is plugged in.
here=$(cd "$(dirname "$0")" && pwd) || exit 71
case "$(uname -s)-$(uname -m)" in
    Linux-x86_64 | Linux-amd64) platform=linux-x86_64 ;;
    Linux-aarch64 | Linux-arm64) platform=linux-aarch64 ;;
    *) platform="$(uname -s)-$(uname -m)" ;;
esac
program="$here/bootstrap-$platform"
if [ ! -f "$program" ]; then
    echo "This device has no program for this kind of computer ($platform)." >&2
    echo "Open 'READ ME FIRST.html' on the same drive: it says what can be done." >&2
    exit 64
fi
exec "$program" "$@"
