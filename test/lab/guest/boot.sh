#!/bin/bash
# PID 1 after switch_root: identity, network, modules, the agent. There is no systemd; services.sh stands for its units.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mkdir -p /run/lock
for link in fd:/proc/self/fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do ln -sfn "${link#*:}" "/dev/${link%%:*}"; done

for word in $(< /proc/cmdline); do
  case $word in lab.*=*) word=${word#lab.}; declare "lab_${word%%=*}=${word#*=}" ;; esac
done
echo "$lab_name" > /proc/sys/kernel/hostname
echo "$lab_name" > /etc/hostname
echo "InitiatorName=iqn.2026-11.lab:$lab_name" > /etc/iscsi/initiatorname.iscsi

# LIO takes /etc/target for its state only if it is there when the module is loaded.
mkdir -p /etc/target/pr /etc/target/alua
modprobe -a virtio_net ${lab_modules//,/ }
[ ! -d /sys/kernel/config ] || mount -t configfs configfs /sys/kernel/config
ip link set lo up
tries=0
while [ ! -e /sys/class/net/eth0 ] && [ $tries -lt 200 ]; do sleep 0.05; tries=$((tries + 1)); done
ip address add "$lab_address/24" dev eth0
ip link set eth0 up

# A VM that is being prepared for a snapshot must not touch its disks: the restored one finds others in their place.
[ "$lab_services" = later ] || /lab/services.sh > /run/services.log 2>&1

read -r uptime _ < /proc/uptime
echo "lab: agent starts at $uptime"
while :; do
  node /lab/guest/agent.js
  echo "lab: the agent ended ($?)"
  sleep 0.2
done
