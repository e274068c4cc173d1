#!/bin/sh
# /init of an initramfs with busybox and without systemd (docs/board.md): heals the client on the board's own card, then goes
# on. What differs from board to board stands in /etc/board.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o mode=0755 run /run
mount -t tmpfs -o mode=1777 tmp /tmp

. /etc/board

for driver in $DRIVERS; do
    modprobe "$driver"
done
# Ten seconds: a card may need a second or two.
tries=0
while [ ! -b "$VIRTUAL" ] && [ "$tries" -lt 500 ]; do
    usleep 20000
    tries=$((tries + 1))
done
network_up

# Nothing from the card runs before this, and nothing unverified by it. Every capability is given up first.
/sbin/holdfast --plugged "$VIRTUAL" --allow-root --no-client
status=$?
# Numbers that the launcher does not end with: 1, the free zone does not mount; 2, the application did not start.
if [ "$status" -ne 0 ]; then
    not_healed "$status"
elif ! mount -t vfat -o nosuid,nodev,noatime,utf8=1,shortname=mixed,errors=continue "$FREE" /mnt; then
    not_healed 1
else
    start_application
    not_healed 2
fi

# The first process must not end.
while :; do
    sleep 3600
done
