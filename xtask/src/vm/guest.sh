#!/usr/bin/busybox sh
# Process 1 of the guest: mounts, modules, then the suites one after the other. What the suites say goes to the second
# serial port, with lines that begin with `@` between them; the kernel and everything else speak on the first one.
export PATH=/usr/bin:/usr/sbin HOME=/root LC_ALL=C RUST_BACKTRACE=0 SABOT_BIN_DIR=/sabot
/usr/bin/busybox --install -s /usr/bin 2>/dev/null
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm /run/netns /tmp /root
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mkdir -p /run/netns
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
for module in /modules/*; do
    insmod "$module" || echo "$module can't be loaded"
done
ip link set lo up
hostname guest
. /settings
stty -F /dev/ttyS1 raw -echo
exec >/dev/ttyS1
echo "@kernel $(uname -r)"
while read -r suite seconds arguments; do
    echo "@suite $suite"
    # shellcheck disable=SC2086 # The arguments are words.
    timeout -s KILL "$seconds" "/sabot/tests/$suite" --test-threads=1 --show-output $arguments
    echo
    echo "@end $suite $?"
done </suites
echo "@done"
sleep 1
poweroff -f
