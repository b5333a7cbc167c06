#!/usr/bin/env bash
# Boots a real systemd in namespaces of its own, network included, on an overlay of ROOT, of which nothing is left; runs
# SCRIPT there, prints its output and ends with its status. Needs root; says so and skips, with status 77, where the kernel
# or the machine does not allow it.
#
#   tests/booted.sh ROOT SCRIPT SECONDS [FOLDER]     the content of FOLDER is copied into the root before
set -euo pipefail
lower=$(realpath "$1")
script=$(realpath "$2")
limit=$3
skip() {
    echo "skipped: $*"
    exit 77
}
[ "$(id -u)" -eq 0 ] || skip 'a systemd of its own needs root'
[ -x "$lower/lib/systemd/systemd" ] || skip "no systemd in $lower"

work=$(mktemp -d)
# shellcheck disable=SC2317 # by the trap
cleanup() {
    umount -l "$work/root" 2>/dev/null || true
    umount -l "$work" 2>/dev/null || true
    rmdir "$work" 2>/dev/null || true
}
trap cleanup EXIT
mount -t tmpfs -o size=1g tmpfs "$work" || skip 'no tmpfs may be mounted'
mkdir "$work/upper" "$work/scratch" "$work/root"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$work/upper,workdir=$work/scratch" "$work/root" ||
    skip 'no overlay may be mounted'
root=$work/root
if [ $# -gt 3 ]; then cp -R "$4/." "$root/"; fi

# Of the root's own units none is wanted but the journal's.
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
After=systemd-journald.service dbus.socket
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'exec >/look.log 2>&1; /look; echo $? >/look.status'
StandardOutput=null
UNIT
cp "$script" "$root/look"
chmod 0755 "$root/look"

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
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=check.target --show-status=no
ENTER
unshare --pid --fork --kill-child --mount --uts --ipc --cgroup --net --propagation private \
    sh "$root/enter.sh" "$root" >"$work/console" 2>&1 &
systemd=$!
begin=$SECONDS
while [ ! -s "$root/look.status" ] && [ $((SECONDS - begin)) -lt "$limit" ] && kill -0 "$systemd" 2>/dev/null; do
    sleep 0.2
done
# With it goes everything in its namespace.
kill -KILL "$systemd" 2>/dev/null || true
wait "$systemd" 2>/dev/null || true
if [ ! -e "$root/look.log" ]; then
    tail -n 5 "$work/console"
    skip 'systemd does not run in a namespace here'
fi
cat "$root/look.log"
[ -s "$root/look.status" ] || { echo "not done within $limit s" >&2; exit 1; }
exit "$(cat "$root/look.status")"
