#!/bin/sh
# The card's driver is not loaded yet: until a word comes over the second serial line, the machine's state is like that of any
# other boot. QEMU's saved states leave out what the kernel had told the card's controller where to answer; it is found anew,
# as at power-on.
exec 3<>/dev/ttyS1
busybox stty -F /dev/ttyS1 raw -echo
echo @AGENT >&3
read -r word <&3
exec 3>&-
busybox mount -t sysfs sys /sys
for device in /sys/bus/pci/devices/*; do
    # An SD host controller (PCI class code 08 05).
    case $(busybox cat "$device/class") in
    0x0805*) echo 1 >"$device/remove" ;;
    esac
done
echo 1 >/sys/bus/pci/rescan
busybox umount /sys
exec /init
