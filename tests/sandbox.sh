#!/usr/bin/env bash
# Runs the installed unit under a real systemd, sandbox and all, on an overlay of this machine's root folder. Needs root;
# says so and skips where the kernel or the machine does not allow it.
#
#   tests/sandbox.sh BINARY [SETTINGS_FILE] [SECONDS]
#
# The service is started, must reach READY, is reloaded, is looked at, and is stopped; the journal is printed.
set -euo pipefail
source=$(cd "$(dirname "$0")/.." && pwd)
binary=$(realpath "$1")
settings=${2:-}
limit=${3:-30}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

make --no-print-directory -C "$source" install DESTDIR="$work/root" BIN="$binary" >/dev/null
live=$work/root/etc/audiohook-collector/collector.env
if [ -n "$settings" ]; then cat "$settings" >>"$live"; fi

cat >"$work/look" <<'LOOK'
#!/bin/sh
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
exit 0
LOOK
status=0
"$source/tests/booted.sh" / "$work/look" "$limit" "$work/root" >"$work/log" || status=$?
cat "$work/log"
if [ "$status" -eq 77 ]; then
    echo 'on a machine with systemd: make install && systemctl start audiohook-collector'
    exit 0
fi
for fact in started=yes ActiveState=active reloaded=yes stopped=yes levels=yes Result=success ExecMainStatus=0; do
    grep -qx "$fact" "$work/log" || { echo "not seen: $fact" >&2; exit 1; }
done
grep -qE '^Seccomp:[[:space:]]+2$' "$work/log" || { echo 'no system-call filter is at work' >&2; exit 1; }
