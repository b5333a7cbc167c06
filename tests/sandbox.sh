#!/usr/bin/env bash
# Runs the installed unit under a real systemd, sandbox and all: in a PID, mount and cgroup namespace of its own, on an
# overlay of this machine's root folder, of which nothing is left. Needs root; says so and skips where the kernel or the
# machine does not allow it.
#
#   tests/sandbox.sh BINARY [SETTINGS_FILE] [SECONDS]
#
# The service is started, must reach READY, is reloaded, is looked at, and is stopped; the journal is printed.
set -euo pipefail
source=$(cd "$(dirname "$0")/.." && pwd)
binary=$(realpath "$1")
settings=${2:-}
limit=${3:-30}
skip() {
    echo "skipped: $*; on a machine with systemd: make install && systemctl start audiohook-collector"
    exit 0
}
[ "$(id -u)" -eq 0 ] || skip 'a systemd of its own needs root'
init=$(command -v /lib/systemd/systemd || true)
[ -n "$init" ] || skip 'no systemd here'

work=$(mktemp -d)
cleanup() {
    umount -l "$work/root" 2>/dev/null || true
    umount -l "$work" 2>/dev/null || true
    rmdir "$work" 2>/dev/null || true
}
trap cleanup EXIT
mount -t tmpfs -o size=512m tmpfs "$work" || skip 'no tmpfs may be mounted'
mkdir "$work/upper" "$work/scratch" "$work/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/scratch" "$work/root" ||
    skip 'no overlay may be mounted'
root=$work/root

make --no-print-directory -C "$source" install DESTDIR="$root" BIN="$binary" >/dev/null
live=$root/etc/audiohook-collector/collector.env
if [ -n "$settings" ]; then cat "$settings" >>"$live"; fi

# Of this machine's own units none is wanted but the journal's.
printf '[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\n' >"$root/etc/systemd/journald.conf"
rm -rf "$root"/lib/systemd/system/*.wants "$root"/etc/systemd/system/*.wants "$root"/run/systemd
cat >"$root/etc/systemd/system/check.target" <<'UNIT'
[Unit]
DefaultDependencies=no
Wants=systemd-journald.service dbus.socket look.service
UNIT
cat >"$root/etc/systemd/system/look.service" <<'UNIT'
[Unit]
DefaultDependencies=no
After=systemd-journald.service
[Service]
Type=oneshot
ExecStart=/bin/sh /look.sh
StandardOutput=null
UNIT
cat >"$root/look.sh" <<'LOOK'
exec >/look.log 2>&1
unit=audiohook-collector.service
timeout 10 systemctl start $unit && echo started=yes
for pair in ActiveState NotifyAccess StatusText MemoryCurrent NRestarts; do systemctl show -p $pair $unit; done
pid=$(systemctl show -p MainPID --value $unit)
grep -E '^(Uid|Seccomp|NoNewPrivs|CapEff):' "/proc/$pid/status"
ls -l /var/log/private/audiohook-collector /var/lib/private/audiohook-collector
timeout 5 systemctl reload $unit && echo reloaded=yes
timeout 10 systemctl stop $unit && echo stopped=yes
systemctl show -p Result -p ExecMainStatus $unit
# The level of a line is the journal's own, and its mark is gone from the text.
journalctl --no-pager -o cat -u $unit -p info..info | grep -q '^{.*"level":"INFO"' && echo levels=yes
journalctl --no-pager -o cat -u $unit
touch /look.done
LOOK

cat >"$root/enter.sh" <<'ENTER'
set -e
cd "$1"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=0755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
# A /dev of its own: what systemd makes there must not reach this machine's.
mount -t tmpfs -o mode=0755 tmpfs dev
mkdir dev/shm dev/pts
for name in null zero full random urandom tty; do
    touch "dev/$name"
    mount --bind "/dev/$name" "dev/$name"
done
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
# Pivoted, not only chrooted: the kernel makes no user namespace for a process in a chroot, and the unit has one.
mkdir -p before
pivot_root . before
umount -l before
# As whoever starts a container for systemd does: credentials reach the service by mounts that propagate.
mount --make-rshared /
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin "$2" --system --unit=check.target --show-status=no
ENTER
unshare --pid --fork --kill-child --mount --uts --ipc --cgroup --propagation private \
    sh "$root/enter.sh" "$root" "$init" >"$work/console" 2>&1 &
systemd=$!
begin=$SECONDS
while [ ! -e "$root/look.done" ] && [ $((SECONDS - begin)) -lt "$limit" ] && kill -0 "$systemd" 2>/dev/null; do
    sleep 0.2
done
# With it goes everything in its namespace.
kill -KILL "$systemd" 2>/dev/null || true
wait "$systemd" 2>/dev/null || true
if [ ! -s "$root/look.log" ]; then
    tail -n 5 "$work/console"
    skip 'systemd does not run in a namespace here'
fi
cat "$root/look.log"
for fact in started=yes ActiveState=active reloaded=yes stopped=yes levels=yes Result=success ExecMainStatus=0; do
    grep -qx "$fact" "$root/look.log" || { echo "not seen: $fact" >&2; exit 1; }
done
grep -qE '^Seccomp:[[:space:]]+2$' "$root/look.log" || { echo 'no system-call filter is at work' >&2; exit 1; }
