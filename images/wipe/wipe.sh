#!/bin/sh
# Makes disks empty: stops what runs on them (LVM, mdadm), wipes every signature and partition table, and looks again.
# The data between is not overwritten: this is for the next installation, not for giving disks away.
#
# Which disks, the server says for each boot that is an order, by kiwispray.device= on the kernel command line: `all`, one
# /dev/…, `first` or `smallest`. Without it nothing is touched. Never touched are media that can be removed, USB, CDs, what
# cannot be written, what lies on a storage network (FC, iSCSI, NVMe over fabrics), and the disk that this system runs from.
set -u
. "${0%/*}/kiwispray.sh"

sys=${KIWISPRAY_SYS:-/sys}
dev=${KIWISPRAY_DEV:-/dev}
mounts=${KIWISPRAY_MOUNTINFO:-/proc/self/mountinfo}
swaps=${KIWISPRAY_SWAPS:-/proc/swaps}
# Tables, and signatures at either end, lie within this.
end_bytes=4194304

# whole MAJOR:MINOR: the disks that a block device lies on, through partitions, LVM and mdadm.
whole() (
    path=$(readlink -f "$sys/dev/block/$1") || exit 0
    under=
    for slave in "$path"/slaves/*; do
        [ -e "$slave/dev" ] || continue
        under=yes
        whole "$(cat "$slave/dev")"
    done
    [ -z "$under" ] || exit 0
    [ ! -e "$path/partition" ] || path=${path%/*}
    printf '%s\n' "${path##*/}"
)

# Disks that something is mounted or swapped from: one of them is the medium that this system was started from.
in_use() {
    awk '$3 !~ /^0:/ { print $3 }' "$mounts" | sort -u | while read -r number; do whole "$number"; done
    # btrfs hides the device's number, so the name of what is mounted is looked at too.
    {
        awk '{ for (i = 1; i < NF; i++) if ($i == "-" && $(i + 2) ~ /^\/dev\//) print $(i + 2) }' "$mounts"
        awk 'NR > 1 && $2 == "partition" { print $1 }' "$swaps"
    } | while read -r node; do
        node=$(readlink -f "$node")
        number=$(cat "$sys/class/block/${node##*/}/dev" 2>/dev/null) && whole "$number"
    done
}

# networked DISK: whether it is a namespace of NVMe over fabrics. One that can be reached on several paths hangs below its
# subsystem, which is no device of any bus, so its controllers are asked.
networked() {
    for path in "$sys/block/$1/device/transport" "$sys/block/$1/device"/nvme*/transport; do
        [ -e "$path" ] || continue
        case $(cat "$path") in pcie | apple-nvme) ;; *) return 0 ;; esac
    done
    return 1
}

# why_not DISK: why it is left alone; nothing if it may be wiped.
why_not() {
    if networked "$1"; then echo "on a storage network"; return; fi
    path=$sys/block/$1
    case $1 in ram* | loop* | zram* | nbd* | rbd* | rnbd* | md* | dm-* | mtdblock*) echo "no disk"; return ;; esac
    case $1 in sr* | fd* | mmcblk*boot* | mmcblk*rpmb) echo "no disk"; return ;; esac
    if [ ! -e "$path/device" ] || [ "$(cat "$path/hidden" 2>/dev/null)" = 1 ]; then echo "no disk"
    elif [ "$(cat "$path/size")" = 0 ]; then echo "empty drive"
    elif [ "$(cat "$path/removable")" = 1 ] || [ "$(cat "$path/device/type" 2>/dev/null)" = SD ]; then echo "removable"
    elif [ "$(cat "$path/ro")" = 1 ]; then echo "read-only"
    else
        case $(readlink -f "$path/device") in
            */usb[0-9]*) echo "on USB"; return ;;
            # A LUN may be another machine's, too, which has it mounted.
            */rport-* | */session[0-9]*) echo "on a storage network"; return ;;
            */nvme-fabrics/*) echo "on a storage network"; return ;;
        esac
        case $kept in *" $1 "*) echo "this system runs from it" ;; esac
    fi
}

# Every disk that may be wiped, one per line.
candidates() {
    kept=" $(in_use | tr '\n' ' ') "
    for path in "$sys"/block/*; do
        disk=${path##*/}
        why=$(why_not "$disk")
        case $why in
            '') printf '%s\n' "$disk" ;;
            "no disk") ;;
            *) say "$disk is left alone: $why" >&2 ;;
        esac
    done
}

# ids DISK: names that udev gives it below /dev/disk/by-id, as an initrd without udev has none.
ids() {
    path=$sys/block/$1
    wwid=$(cat "$path/wwid" "$path/device/wwid" 2>/dev/null | head -n 1)
    case $1 in
        nvme*)
            serial=$(sed 's/ *$//' "$path/device/model")_$(sed 's/ *$//; s/^ *//' "$path/device/serial")
            printf 'nvme-%s\n' "$wwid" "$serial" "${serial}_$(cat "$path/nsid")" ;;
        vd*) printf 'virtio-%s\n' "$(cat "$path/serial")" ;;
        *)
            case $wwid in naa.?*) printf '%s\n' "wwn-0x${wwid#naa.}" "scsi-3${wwid#naa.}" ;; esac
            # What SATA disks say to SCSI: a model of 40 characters, and a serial number of 20.
            LC_ALL=C tr -c ' -~' '\n' <"$path/device/vpd_pg83" |
                sed -n 's/.*ATA     \(.\{40\}\)\(.\{20\}\).*/\1 \2/p' | sed 's/ *$//; s/^ */ata-/; s/  */_/g' ;;
    esac 2>/dev/null | LC_ALL=C tr -c 'A-Za-z0-9#+.:=@_\n-' '_'
}

# called ID: the disk of this name below /dev/disk/by-id; nothing if several have it.
called() {
    found=$(candidates | while read -r disk; do ! ids "$disk" | grep -Fqx -e "$1" || printf '%s\n' "$disk"; done)
    case $found in *[!A-Za-z0-9!]*) ;; ?*) printf '%s\n' "$found" ;; esac
}

# node DISK: its device node, whose name has slashes where sysfs cannot.
node() { printf '%s/%s\n' "$dev" "$1" | tr '!' /; }

# chosen POLICY: those of the candidates that the order is for.
chosen() {
    case $1 in
        all) candidates ;;
        first) candidates | sort | head -n 1 ;;
        smallest)
            candidates | while read -r disk; do printf '%s %s\n' "$(cat "$sys/block/$disk/size")" "$disk"; done |
                sort -n | head -n 1 | cut -d ' ' -f 2 ;;
        "$dev"/*)
            if [ ! -e "$1" ]; then
                case $1 in "$dev"/disk/by-id/*) called "${1##*/}" ;; esac
                return
            fi
            named=$(readlink -f "$1")
            candidates | while read -r disk; do [ "$(node "$disk")" != "$named" ] || printf '%s\n' "$disk"; done ;;
    esac
}

# partitions DISK: the nodes of its partitions.
partitions() {
    for path in "$sys/block/$1"/*/partition; do
        [ -e "$path" ] || continue
        path=${path%/partition}
        printf '%s\n' "${path##*/}"
    done
}

# A controller goes on looking for its disks long after its driver was loaded: when none has come for a while, these are all.
settle() {
    known=
    while found=$(ls "$sys/block") && [ "$found" != "$known" ]; do
        known=$found
        sleep "${KIWISPRAY_PAUSE:-10}"
    done
}

# An array may lie on volumes, and volumes on an array: twice settles both.
stop() {
    # Nothing is to be put together again while it is taken apart.
    ! command -v udevadm >/dev/null || udevadm control --stop-exec-queue 2>/dev/null
    for round in 1 2; do
        ! command -v lvm >/dev/null || lvm vgchange --activate n >/dev/null 2>"$ks_dir/lvm.log"
        if [ -e /proc/mdstat ] && command -v mdadm >/dev/null; then
            mdadm --stop --scan >/dev/null 2>"$ks_dir/mdadm.log"
        fi
    done
}

# holders DISK: what still runs on it or on one of its partitions.
holders() {
    for path in "$sys/block/$1"/holders/* "$sys/block/$1"/*/holders/*; do
        [ ! -e "$path" ] || printf '%s ' "${path##*/}"
    done
}

# wipe_node NODE: signatures by name, as far as wipefs is there, and both ends, where tables and most signatures lie.
wipe_node() {
    bytes=$(($(cat "$sys/class/block/$1/size") * 512))
    file=$(node "$1")
    # What is not there would be made, as a plain file.
    [ -e "$file" ] || { echo "there is no $file" >"$ks_dir/wipe.log"; return 1; }
    if command -v wipefs >/dev/null; then
        wipefs --all --force "$file" >/dev/null 2>"$ks_dir/wipe.log" || return 1
    fi
    zero "$file" 0 "$((bytes < end_bytes ? bytes : end_bytes))" || return 1
    [ "$bytes" -gt "$end_bytes" ] || return 0
    at=$(((bytes - end_bytes) / 65536))
    zero "$file" "$at" "$((bytes - at * 65536))"
}

# zero NODE AT BYTES: AT counts blocks of 64 KiB.
zero() {
    head -c "$3" /dev/zero | dd of="$1" bs=65536 seek="$2" conv=notrunc,fsync 2>"$ks_dir/wipe.log"
}

# wipe_disk DISK
wipe_disk() {
    busy=$(holders "$1")
    [ -z "$busy" ] || ks_because "$1 is still in use by $busy" || return
    for part in $(partitions "$1") "$1"; do
        wipe_node "$part" || ks_because "$part cannot be wiped: $(tail -n 1 "$ks_dir/wipe.log")" || return
    done
    # The kernel still knows the old partitions.
    blockdev --rereadpt "$(node "$1")" 2>/dev/null || partprobe "$(node "$1")" 2>/dev/null
    verify "$1"
}

# What is believed is what is read back, and all of it: on a disk larger than both ends, 64 blocks of the first, and the last
# to its end.
verify() {
    left=$(partitions "$1" | tr '\n' ' ')
    [ -z "$left" ] || ks_because "$1 still has partitions: $left" || return
    file=$(node "$1")
    # From the disk, not from the memory of what was written.
    ! command -v blockdev >/dev/null || blockdev --flushbufs "$file" 2>/dev/null
    if command -v wipefs >/dev/null; then
        left=$(wipefs --no-act --noheadings --output TYPE "$file" 2>&1 | tr '\n' ' ')
        [ -z "$left" ] || ks_because "$1 still has signatures: $left" || return
    fi
    bytes=$(($(cat "$sys/block/$1/size") * 512))
    last=$((bytes > end_bytes ? (bytes - end_bytes) / 65536 : 0))
    wanted=$(((bytes < end_bytes ? bytes : end_bytes) + bytes - last * 65536))
    [ "$(ends "$file" "$last" | wc -c)" -eq "$wanted" ] || ks_because "$1 cannot be read back" || return
    left=$(ends "$file" "$last" | tr -d '\000' | head -c 1 | wc -c)
    [ "$left" -eq 0 ] || ks_because "$1 does not keep what is written to it"
}

# ends NODE LAST: the bytes of both ends; LAST counts blocks of 64 KiB.
ends() {
    dd if="$1" bs=65536 count=64 2>/dev/null
    dd if="$1" bs=65536 skip="$2" 2>/dev/null
}

wipe() {
    policy=$(ks_argument kiwispray.device)
    [ -n "$policy" ] || ks_because "this boot is no order to write a disk: kiwispray.device= is missing" || return
    settle
    stop
    disks=$(chosen "$policy")
    [ -n "$disks" ] || ks_because "there is no disk to wipe for $policy" || return
    for disk in $disks; do
        say "wipes $disk, $(($(cat "$sys/block/$disk/size") / 2048)) MiB"
        wipe_disk "$disk" || return
    done
    ! command -v udevadm >/dev/null || udevadm control --start-exec-queue 2>/dev/null
    say "empty: $(printf '%s' "$disks" | tr '\n' ' ')"
}

[ -n "${KIWISPRAY_SOURCED:-}" ] || ks_run wipe
