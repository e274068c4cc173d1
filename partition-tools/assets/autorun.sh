#!/bin/sh
# Starts this device's launcher. Desktops offer to run this file when the device is plugged in.

# A desktop shows nobody what its programs say: what went wrong comes in a window.
in_a_window() {
    if command -v zenity; then
        zenity --error --no-markup --title=Holdfast --width=520 --text="$1"
    elif command -v kdialog; then
        kdialog --title Holdfast --error "$1"
    elif command -v xmessage; then
        xmessage -center "$1"
    elif command -v notify-send; then
        notify-send --urgency=critical Holdfast "$1"
    fi >/dev/null 2>&1
}
seen_by_nobody() {
    [ ! -t 2 ] && [ -n "$DISPLAY$WAYLAND_DISPLAY" ]
}

here=$(cd "$(dirname "$0")" && pwd) || exit 71
case "$(uname -s)-$(uname -m)" in
    Linux-x86_64 | Linux-amd64) platform=linux-x86_64 ;;
    Linux-aarch64 | Linux-arm64) platform=linux-aarch64 ;;
    *) platform="$(uname -s)-$(uname -m)" ;;
esac
program="$here/bootstrap-$platform"
if [ ! -f "$program" ]; then
    text="This device has no program for this kind of computer ($platform).
Open 'READ ME FIRST.html' on the same drive: it says what can be done."
    echo "$text" >&2
    seen_by_nobody && in_a_window "$text"
    exit 64
fi
if seen_by_nobody && HOLDFAST_MESSAGE_FILE=$(mktemp); then
    export HOLDFAST_MESSAGE_FILE
    "$program" "$@"
    status=$?
    text=$(cat "$HOLDFAST_MESSAGE_FILE")
    rm -f "$HOLDFAST_MESSAGE_FILE"
    [ -z "$text" ] || in_a_window "$text"
    exit "$status"
fi
exec "$program" "$@"
