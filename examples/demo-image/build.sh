#!/bin/sh
# Makes an image to try kiwispray with: FOLDER gets a kernel, an initrd and an image.toml. The "system" in the initrd writes a disk
# of one sector, runs the script that razorurl= names, as a real image does at its first boot, and reboots.
#
# usage: build.sh FOLDER        e.g. build.sh data/images/demo; the folder's name is the image's name
#
# Needs Debian's busybox-static, cpio, xz-utils and, to fetch the kernel package, apt's lists (apt-get update). It needs no root.
# KERNEL_TREE names an unpacked kernel package, which is then used instead.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?usage: build.sh FOLDER}
if [ -e "$folder" ]; then
    echo "build.sh: $folder is there already: remove it, or name another folder" >&2
    exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

tree=${KERNEL_TREE:-}
if [ -z "$tree" ]; then
    package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: //p' | head -n 1)
    echo "fetching $package"
    (cd "$work" && apt-get download -q "${package:?apt knows no kernel: run apt-get update}" >/dev/null)
    tree=$work/tree
    dpkg-deb -x "$work"/*.deb "$tree"
fi

root=$work/root
mkdir -p "$root/bin" "$root/dev" "$root/proc" "$root/sys" "$root/lib" "$root/run" "$root/etc"
cp /bin/busybox "$root/bin/busybox"
cp "$here/init" "$root/init"
cp "$here/udhcpc.sh" "$root/etc/udhcpc.sh"
chmod 755 "$root/init" "$root/etc/udhcpc.sh" "$root/bin/busybox"
# What QEMU's network card and disk need, as far as the kernel has it in modules.
for module in virtio virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci failover net_failover virtio_net virtio_blk; do
    find "$tree/lib/modules" -name "$module.ko" -exec cp {} "$root/lib/" \;
    find "$tree/lib/modules" -name "$module.ko.xz" | while read -r file; do xz -dc "$file" >"$root/lib/$module.ko"; done
done
# A boot sector: print the text below, and stop.
printf '\061\300\216\330\276\031\174\374\254\204\300\164\011\264\016\273\007\000\315\020\353\362\364\353\375' >"$root/disk"
printf '\r\nThis is the disk that kiwispray installed.\r\n\000' >>"$root/disk"
truncate -s 510 "$root/disk"
printf '\125\252' >>"$root/disk"

# Beside the folder and then in its place: a server may be looking.
made=$folder.making.$$
mkdir -p "$made"
cp "$tree"/boot/vmlinuz-* "$made/linux"
(cd "$root" && find . | cpio -o -H newc -R 0:0 --quiet) | gzip >"$made/initrd"
cat >"$made/image.toml" <<'TOML'
kind = "linux"
kernel = "linux"
initrd = "initrd"
append = "console=ttyS0,115200 quiet panic=5 net.ifnames=0"
writes = "disk"
device = "/dev/vda"
TOML
chmod 644 "$made"/*
mv -T "$made" "$folder"
echo "made $folder"
