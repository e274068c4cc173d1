# What is this board's own.
VIRTUAL=/dev/mmcblk0p2
FREE=/dev/mmcblk0p1
DRIVERS="sdhci_pci mmc_block vfat isofs nls_cp437 nls_ascii nls_utf8 virtio_pci virtio_net"

network_up() {
    ip link set lo up
    ip link set eth0 up
    ip addr add 10.0.2.15/24 dev eth0
    ip route add default via 10.0.2.2
}

start_application() {
    echo "@up $(cut -d ' ' -f 1 /proc/uptime)"
    (cd /mnt && client/run.sh)
    umount /mnt
    poweroff -f
}

not_healed() {
    echo "@not-healed $1"
    poweroff -f
}
