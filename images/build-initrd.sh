#!/bin/sh
# Makes the kernel and the initrd of an image that lives in memory: busybox, drivers, and one of our scripts.
# usage: build-initrd.sh discover|wipe|hardware-config [FOLDER]    (the folder is that of the image, or FOLDER)
#
# Needs a Linux with busybox (Debian's busybox-static) and cpio, for `wipe` also wipefs, blockdev, mdadm and lvm (util-linux, mdadm,
# lvm2), which are copied with their libraries. The kernel and its drivers are those of this machine. What may be changed:
#   KERNEL_TREE=DIR     a kernel package unpacked there instead, with boot/vmlinuz-* and lib/modules/*
#   KERNEL=VERSION      which of several kernels
#   TOOLS="a b"         more programs that are copied with their libraries, such as those a hardware configuration needs
#   OVERLAY=DIR         files that are copied over everything; a before.sh at its top is run before the script
# An initrd holds one script only: one that takes inventory cannot wipe, whatever its kernel command line says.
set -eu
here=$(cd "$(dirname "$0")" && pwd)

die() { echo "build-initrd.sh: $*" >&2; exit 1; }

task=${1:-}
case $task in
    discover) tools= ;;
    wipe) tools="wipefs blockdev mdadm lvm" ;;
    hardware-config) tools= ;;
    *) die "usage: build-initrd.sh discover|wipe|hardware-config [FOLDER]" ;;
esac
folder=${2:-$here/$task}
tree=${KERNEL_TREE:-/}
PATH=$PATH:/usr/sbin:/sbin
busybox=$(command -v busybox) || die "there is no busybox: install busybox-static"
! ldd "$busybox" >/dev/null 2>&1 || die "$busybox needs libraries: install busybox-static"
command -v cpio >/dev/null || die "there is no cpio: install it"

version=${KERNEL:-}
if [ -z "$version" ] && [ "$tree" = / ]; then version=$(uname -r); fi
if [ -z "$version" ]; then
    set -- "$tree"/lib/modules/*
    [ "$#" -eq 1 ] || die "$tree/lib/modules holds $# kernels: say which by KERNEL="
    version=${1##*/}
fi
[ -r "$tree/boot/vmlinuz-$version" ] || die "there is no $tree/boot/vmlinuz-$version that could be read"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root/bin" "$root/etc" "$root/kiwispray" "$root/lib/modules/$version" "$root/dev" "$root/run" "$root/tmp" "$root/usr/sbin"
cp "$busybox" "$root/bin/busybox"
install -m 755 "$here/init.sh" "$root/init"
install -m 644 "$here/kiwispray.sh" "$root/kiwispray/kiwispray.sh"
install -m 755 "$here/$task/$task.sh" "$root/kiwispray/run.sh"

cat >"$root/etc/udhcpc.sh" <<'DHCP'
#!/bin/sh
case $1 in
    bound | renew)
        ip address flush dev "$interface"
        ip address add "$ip/${mask:-24}" dev "$interface"
        [ -z "${router:-}" ] || ip route replace default via "${router%% *}" dev "$interface"
        : >/etc/resolv.conf
        for server in ${dns:-}; do echo "nameserver $server" >>/etc/resolv.conf; done ;;
esac
DHCP
chmod 755 "$root/etc/udhcpc.sh"

# Tools, with the libraries that they are linked to.
for tool in $tools ${TOOLS:-}; do
    path=$(command -v "$tool") || die "there is no $tool to copy: install it"
    install -m 755 "$path" "$root/usr/sbin/$tool"
    ldd "$path" 2>/dev/null | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p; s/^[[:blank:]]*\(\/[^ ]*\) .*/\1/p' | while read -r library; do
        mkdir -p "$root${library%/*}"
        cp -L "$library" "$root$library"
    done
done

# Drivers of network cards and disks, and whatever they need. Names of folders below the kernel's own.
modules=$tree/lib/modules/$version
cp "$modules"/modules.order "$modules"/modules.builtin* "$root/lib/modules/$version/" 2>/dev/null || true
for drivers in drivers/net drivers/virtio drivers/block drivers/ata drivers/scsi drivers/nvme drivers/md drivers/message \
    drivers/cdrom drivers/usb drivers/pci drivers/ptp drivers/dca drivers/i2c drivers/hv drivers/xen drivers/mmc \
    net/core lib crypto arch fs/fat fs/isofs fs/nls; do
    [ -d "$modules/kernel/$drivers" ] || continue
    mkdir -p "$root/lib/modules/$version/kernel/${drivers%/*}"
    cp -r "$modules/kernel/$drivers" "$root/lib/modules/$version/kernel/${drivers%/*}/"
done
rm -rf "$root/lib/modules/$version/kernel/drivers/net/wireless" "$root/lib/modules/$version/kernel/drivers/usb/gadget"
find "$root/lib/modules" -name '*.ko.xz' -exec xz -d {} +
find "$root/lib/modules" -name '*.ko.zst' -exec zstd -q -d --rm {} +
"$busybox" depmod -b "$root" "$version"

[ -z "${OVERLAY:-}" ] || cp -r "$OVERLAY/." "$root/"
mkdir -p "$folder"
# Not in one pipe, where only gzip could fail.
(cd "$root" && find . | cpio -o -H newc --quiet -R 0:0) >"$work/cpio"
gzip -1 <"$work/cpio" >"$work/initrd"
# Beside what is there, as machines may be fetching it, and a kernel fits its own drivers only.
trap 'rm -rf "$work" "$folder/.vmlinuz.new" "$folder/.initrd.new"' EXIT
install -m 644 "$tree/boot/vmlinuz-$version" "$folder/.vmlinuz.new"
install -m 644 "$work/initrd" "$folder/.initrd.new"
mv -f "$folder/.vmlinuz.new" "$folder/vmlinuz"
mv -f "$folder/.initrd.new" "$folder/initrd"
echo "$folder: vmlinuz $version, initrd $(($(wc -c <"$work/initrd") / 1048576)) MiB"
