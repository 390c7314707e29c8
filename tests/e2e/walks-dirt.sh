# What the wipe walk finds: run in the initrd before the wipe, it fills the disks and leaves everything running.
set -e
modprobe -a md-mod raid1 dm-mod
sgdisk --clear --new 1:0:+32M --new 2:0:+64M --new 3:0:+64M /dev/vda >/dev/null
mke2fs /dev/vda1 >/dev/null 2>&1
# Its superblock is at the end of the partitions.
mdadm --create /dev/md0 --run --quiet --level=1 --raid-devices=2 --metadata=1.0 --assume-clean /dev/vda2 /dev/vda3
lvm vgcreate --quiet site /dev/md0
lvm lvcreate --quiet --yes --zero n --wipesignatures n --name root --size 16M site
lvm vgcreate --quiet data /dev/vdb
lvm lvcreate --quiet --yes --zero n --wipesignatures n --name data --size 16M data
grep -q 'md0 : active raid1' /proc/mdstat
for node in vda vda1 vda2 vda3 md0 vdb; do
    echo "e2e: $node held $(wipefs --no-act --noheadings --output TYPE /dev/$node | tr '\n' ' ')"
done
echo "e2e: running: $(cat /sys/block/dm-*/dm/name | tr '\n' ' ')"
echo "e2e: the disks are dirty"
