#!/usr/bin/busybox sh
# Process 1 of the guest: mounts, modules, then the jobs one after the other, each with its name, the seconds that it may
# take, and its command. What they say goes to the second serial port, with lines that begin with `@` between them; the
# kernel and everything else speak on the first one.
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
# One reader for all jobs, and one writer that stays: a shell that waits for a reader gives up when a child of its ends meanwhile.
# Through a pipe: what draws on terminals would keep the guest busy with its serial port.
mkfifo /tmp/errors
cat /tmp/errors >/dev/console &
exec 3>/tmp/errors
echo "@kernel $(uname -r)"
while read -r name seconds command; do
    echo "@suite $name"
    # shellcheck disable=SC2086 # The command is words.
    timeout -s KILL "$seconds" $command </dev/null 2>&3 3>&-
    status=$?
    echo
    echo "@end $name $status"
done </jobs
echo "@done"
sleep 1
poweroff -f
