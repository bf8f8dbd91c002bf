#!/bin/busybox sh
# initramfs: virtio and ext4, the read-only root image with a tmpfs over it, then the real PID 1 (boot.sh).
B=/bin/busybox
$B mkdir -p /proc /sys /dev /lower /upper /new
$B mount -t proc proc /proc
$B mount -t sysfs sysfs /sys
$B mount -t devtmpfs dev /dev
for module in $($B cat /modules/order); do
  $B insmod "/modules/$module.ko" || echo "lab: insmod $module failed"
done
tries=0
while [ ! -b /dev/vda ] && [ $tries -lt 200 ]; do $B usleep 50000; tries=$((tries + 1)); done
$B mount -t ext4 -o ro,noload /dev/vda /lower || exec $B sh
$B mount -t tmpfs -o size=70% upper /upper
$B mkdir /upper/data /upper/work
$B mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work root /new || exec $B sh
$B mkdir -p /new/lab
$B cp -r /lab/* /new/lab/
for at in proc sys dev; do $B mount --move /$at /new/$at; done
exec $B switch_root /new /lab/boot.sh
