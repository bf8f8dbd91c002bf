#!/bin/bash
# What the units of a real machine do at boot. Idempotent; also run by the host after a VM was restored from a snapshot.
#   vdb  the build under test, read-only, on /opt/sharedha
#   vdc  what survives a reboot: machine id, iSCSI records, LIO's reservations, sharedha's state directory
set -e
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mountpoint -q /opt/sharedha || mount -t ext4 -o ro,noload /dev/vdb /opt/sharedha
mountpoint -q /state || mount -t ext4 /dev/vdc /state
[ -s /state/machine-id ] || tr -d - < /proc/sys/kernel/random/uuid > /state/machine-id
cp /state/machine-id /etc/machine-id

persist() { # PATH: bound to the state disk, which starts with what the image has there
  local kept="/state$1"
  if [ ! -e "$kept" ]; then mkdir -p "$kept" "$1"; cp -a "$1/." "$kept/"; fi
  mountpoint -q "$1" || mount --bind "$kept" "$1"
}
mkdir -p /var/lib/sharedha
persist /etc/iscsi
initiator=$(sed -n 's/.*lab\.initiator=\([^ ]*\).*/\1/p' /proc/cmdline)
[ -z "$initiator" ] || echo "InitiatorName=$initiator" > /etc/iscsi/initiatorname.iscsi
persist /etc/target
persist /var/lib/sharedha

if [ ! -S /run/udev/control ]; then
  /lib/systemd/systemd-udevd --daemon
  udevadm trigger --subsystem-match=block --subsystem-match=misc --subsystem-match=watchdog
  udevadm settle --timeout 20
fi

# The nodes only: Debian's iscsid.service and open-iscsi.service.
if [ -e /sys/class/iscsi_transport/tcp ]; then
  pidof iscsid > /dev/null || iscsid
  if [ -n "$(find /etc/iscsi/nodes -name default -type f 2> /dev/null)" ]; then
    iscsiadm -m node --loginall=automatic || echo "some sessions could not be made ($?)"
  fi
fi
# A test's own units, in order.
for unit in /state/boot.d/*; do [ ! -x "$unit" ] || "$unit" || echo "$unit failed ($?)"; done
