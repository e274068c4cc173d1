#!/bin/sh
{{MARK}}
#
# Shows this board to the computer it is plugged into as one USB device with two units: a CD-ROM and a disk.
# Usage: gadget start | stop | status
#   start   does nothing where it runs already; status: exit status 0 it runs, 3 it does not
set -eu

name={{NAME}}
cd_image={{CD}}
disk_image={{DISK}}
udc={{UDC}}
vendor_id={{VENDOR_ID}}
product_id={{PRODUCT_ID}}
manufacturer={{MANUFACTURER}}
product={{PRODUCT}}
serial={{SERIAL}}
cd_inquiry={{CD_INQUIRY}}
disk_inquiry={{DISK_INQUIRY}}
stall={{STALL}}

configfs=/sys/kernel/config
gadget=$configfs/usb_gadget/$name
function=$gadget/functions/mass_storage.0

fail() {
    echo "gadget: $1" >&2
    echo "gadget: $2" >&2
    exit 1
}

set_attribute() {
    printf '%s\n' "$2" >"$gadget/$1" || fail "$1 cannot be set to '$2'" "see dmesg for what the kernel says."
}

# The controller that shows the device, if it is shown.
shown_by() {
    [ ! -e "$gadget/UDC" ] || cat "$gadget/UDC"
}

choose_controller() {
    if [ -n "$udc" ]; then
        [ -e "/sys/class/udc/$udc" ] ||
            fail "there is no USB device controller $udc" "ls /sys/class/udc shows those that there are."
        return
    fi
    for candidate in /sys/class/udc/*; do
        [ ! -e "$candidate" ] || { udc=${candidate##*/}; return; }
    done
    fail "this board has no USB device controller in use" \
        "on a Raspberry Pi: dtoverlay=dwc2,dr_mode=peripheral in config.txt; then restart, and use the port for data."
}

prepare() {
    for module in libcomposite usb_f_mass_storage; do
        modprobe "$module" 2>/dev/null || true # It may be part of the kernel, which the next lines show.
    done
    [ -d "$configfs" ] || fail "this kernel has no configfs" "it needs CONFIG_USB_CONFIGFS and CONFIG_USB_CONFIGFS_MASS_STORAGE."
    [ -d "$configfs/usb_gadget" ] || mount -t configfs configfs "$configfs" 2>/dev/null || true
    [ -d "$configfs/usb_gadget" ] ||
        fail "this kernel has no USB gadgets" "it needs CONFIG_USB_CONFIGFS and CONFIG_USB_CONFIGFS_MASS_STORAGE."
    for image in "$cd_image" "$disk_image"; do
        [ -f "$image" ] || [ -b "$image" ] || fail "$image is not there" "put the image there, or install again with its place."
    done
    [ -r "$disk_image" ] && [ -w "$disk_image" ] || fail "$disk_image cannot be written" "is its file system mounted read-only?"
}

create() {
    mkdir "$gadget"
    set_attribute idVendor "$vendor_id"
    set_attribute idProduct "$product_id"
    set_attribute bcdUSB 0x0200
    set_attribute bcdDevice 0x0100
    mkdir "$gadget/strings/0x409"
    set_attribute strings/0x409/manufacturer "$manufacturer"
    set_attribute strings/0x409/product "$product"
    set_attribute strings/0x409/serialnumber "$serial"
    mkdir "$gadget/configs/c.1" "$gadget/configs/c.1/strings/0x409"
    set_attribute configs/c.1/strings/0x409/configuration "CD-ROM and disk"
    set_attribute configs/c.1/MaxPower 500
    mkdir "$function" "$function/lun.1" ||
        fail "this kernel has no mass storage for gadgets" "it needs CONFIG_USB_CONFIGFS_MASS_STORAGE."
    set_attribute functions/mass_storage.0/stall "$stall"
    # What a unit is must be said before it has its file.
    set_attribute functions/mass_storage.0/lun.0/cdrom 1
    set_attribute functions/mass_storage.0/lun.0/ro 1
    set_attribute functions/mass_storage.0/lun.0/removable 1
    set_attribute functions/mass_storage.0/lun.1/cdrom 0
    set_attribute functions/mass_storage.0/lun.1/ro 0
    set_attribute functions/mass_storage.0/lun.1/removable 1
    # A write that the computer wants on the medium is put there before it is confirmed.
    set_attribute functions/mass_storage.0/lun.1/nofua 0
    for unit in "lun.0 $cd_inquiry" "lun.1 $disk_inquiry"; do
        # Older kernels do not know it.
        [ ! -e "$function/${unit%% *}/inquiry_string" ] ||
            set_attribute "functions/mass_storage.0/${unit%% *}/inquiry_string" "${unit#* }"
    done
    set_attribute functions/mass_storage.0/lun.0/file "$cd_image"
    set_attribute functions/mass_storage.0/lun.1/file "$disk_image"
    ln -s "$function" "$gadget/configs/c.1/mass_storage.0"
}

# Takes it away, whole or half made. Its directories are the kernel's: they are removed in this order, and one by one.
remove() {
    [ -d "$gadget" ] || return 0
    [ -z "$(shown_by)" ] || printf '\n' >"$gadget/UDC"
    rm -f "$gadget/configs/c.1/mass_storage.0"
    for directory in "$gadget/configs/c.1/strings/0x409" "$gadget/configs/c.1" "$function/lun.1" "$function" \
        "$gadget/strings/0x409" "$gadget"; do
        [ ! -d "$directory" ] || rmdir "$directory"
    done
    # What the computer wrote and did not flush.
    sync
}

start() {
    prepare
    choose_controller
    if [ "$(shown_by)" = "$udc" ] && [ "$(cat "$function/lun.0/file")" = "$cd_image" ] &&
        [ "$(cat "$function/lun.1/file")" = "$disk_image" ]; then
        echo "gadget: $product is shown by $udc already"
        return
    fi
    remove
    # On any fault nothing stays behind by half.
    trap 'status=$?; [ "$status" = 0 ] || remove; exit "$status"' EXIT
    create
    printf '%s\n' "$udc" >"$gadget/UDC" ||
        fail "the controller $udc cannot be used" "another gadget may have it: ls $configfs/usb_gadget; or see dmesg."
    echo "gadget: $product is shown by $udc"
}

status() {
    controller=$(shown_by)
    if [ -z "$controller" ]; then
        echo "gadget: $product is not shown"
        exit 3
    fi
    echo "gadget: $product is shown by $controller ($(cat "/sys/class/udc/$controller/state" 2>/dev/null || echo 'state unknown'))"
    echo "gadget: CD-ROM $(cat "$function/lun.0/file")"
    echo "gadget: disk   $(cat "$function/lun.1/file")"
}

case "${1-}" in
start) start ;;
stop) remove ;;
status) status ;;
*)
    echo "Usage: gadget start | stop | status" >&2
    exit 2
    ;;
esac
