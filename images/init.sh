#!/bin/busybox sh
# The whole system of an initrd made by build-initrd.sh: loads drivers, brings the network up, runs its one script.
/bin/busybox mkdir -p /proc /sys /dev /run /tmp /sbin /usr/sbin /usr/bin
/bin/busybox --install -s /bin
# Real tools stand before busybox's.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o mode=755 run /run
exec </dev/console >/dev/console 2>&1

# Devices appear behind others: three rounds reach a disk behind a controller behind a bridge.
drivers() {
    for round in 1 2 3; do
        find /sys/devices -name modalias -exec cat {} + 2>/dev/null | sort -u | xargs -r modprobe -a -q >/dev/null 2>&1
        sleep 1
    done
    # Disks of SCSI and RAID have drivers that nothing asks for by name.
    for module in sd_mod sr_mod; do modprobe -q "$module" 2>/dev/null; done
}

# lease CARD
lease() { udhcpc -i "$1" -q -n -t 5 -T 2 -s /etc/udhcpc.sh >/dev/null 2>&1; }

# The card that the firmware booted from comes first; BOOTIF= is its address.
network() {
    booted=$(sed -n 's/.*BOOTIF=01-\([0-9A-Fa-f-]*\).*/\1/p' /proc/cmdline | tr 'A-F-' 'a-f:')
    ip link set lo up
    first= rest=
    for path in /sys/class/net/*; do
        [ -e "$path/device" ] || continue
        card=${path##*/}
        ip link set "$card" up
        if [ "$(cat "$path/address")" = "$booted" ]; then first=$card; else rest="$rest $card"; fi
    done
    for card in $first $rest; do
        lease "$card" && return 0
    done
    return 1
}

drivers
until network; do
    echo "kiwispray: no network card has got an address, trying again"
    sleep 5
    drivers
done
[ ! -f /before.sh ] || sh /before.sh
# Words of the kernel command line are in the environment too, and would be taken for settings.
env -i PATH="$PATH" HOME=/ LC_ALL=C sh /kiwispray/run.sh
# It ends here only if it could not even begin.
sleep 60
reboot -f
