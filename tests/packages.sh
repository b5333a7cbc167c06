#!/usr/bin/env bash
# Makes both packages, looks at them with lintian and rpmlint, and takes each through its life under a real systemd in a
# clean Debian root that never saw the sources: install, two instances side by side, upgrade with edited settings and a new
# default, remove, purge. The rpm has a database of its own there. Needs root, and Debian's packages debootstrap, lintian,
# rpm and rpmlint.
#
#   tests/packages.sh [MIRROR]
set -euo pipefail
cd "$(dirname "$0")/.."
mirror=${1:-http://deb.debian.org/debian}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
    echo "$*" >&2
    exit 1
}

for kind in deb rpm; do
    for release in 1 2; do
        make --no-print-directory "$kind" PACKAGE_RELEASE="$release" >"$work/made" 2>"$work/log" || { cat "$work/log"; exit 1; }
        cp "$(tail -n 1 "$work/made")" "$work/$release.$kind"
    done
    first=$(tail -n 1 "$work/made")
    make --no-print-directory "$kind" PACKAGE_RELEASE=2 >/dev/null 2>&1
    cmp "$first" "$work/2.$kind" || fail "a second $kind of the same sources differs"
done
echo '== lintian'
lintian --fail-on error "$work/1.deb"
echo '== rpmlint'
rpmlint --rpmlintrc contrib/packaging/rpmlintrc "$work/1.rpm" | tee "$work/rpmlint"
grep -q ' 0 errors' "$work/rpmlint" || fail 'rpmlint finds errors'

# In the second release the default settings have changed.
dpkg-deb -R "$work/2.deb" "$work/2"
echo '# of release 2' >>"$work/2/etc/audiohook-collector/collector.env"
dpkg-deb --root-owner-group -b "$work/2" "$work/2.deb" >/dev/null

echo '== a clean root'
debootstrap --variant=minbase --include=ca-certificates,curl,dbus,procps,rpm,systemd,systemd-sysv bookworm \
    "$work/clean" "$mirror" >"$work/log" 2>&1 || { tail -n 20 "$work/log"; exit 1; }
mkdir "$work/packages"
mv "$work"/?.deb "$work"/?.rpm "$work/packages"
mkdir "$work/tree"
mv "$work/packages" "$work/tree/packages"

# The life of a package: the same for both kinds, $kind given before it.
cat >"$work/life" <<'LIFE'
set -eu
settings=/etc/audiohook-collector
one=audiohook-collector.service
two=audiohook-collector@paris.service
deb() { DEBIAN_FRONTEND=noninteractive dpkg --force-confold "$@"; }
redhat() { rpm --dbpath /packages/db --nodeps "$@"; }
expect() { what=$1; shift; if "$@"; then echo "$kind: $what"; else echo "$kind: NOT $what" >&2; exit 1; fi; }
no() { ! "$@"; }
# until WHAT COMMAND…: within 20 s.
until_true() {
    what=$1; shift
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        if [ "$tries" -ge 100 ]; then
            journalctl --no-pager -n 30
            echo "$kind: NOT $what" >&2
            exit 1
        fi
        sleep 0.2
    done
    echo "$kind: $what"
}
collects() { [ "$(wc -l <"/var/log/private/$1/audiohook_events.jsonl")" -gt "${2:-0}" ]; } 2>/dev/null
instance() { curl -sS -m 5 "http://127.0.0.1:$1/health" | grep -q "\"instance\":\"$2\""; }
labelled() { curl -sS -m 5 "http://127.0.0.1:$1/metrics" | grep -q "^audiohook_collector_build_info{.*instance_name=\"$2\"} 1"; }
pid() { systemctl show -p MainPID --value "$1"; }

# Installed.
case $kind in deb) deb -i /packages/1.deb ;; rpm) redhat -i /packages/1.rpm ;; esac
expect 'installing enables nothing' no systemctl --quiet is-enabled $one
expect 'installing starts nothing' no systemctl --quiet is-active $one
expect 'the settings are for root alone' [ "$(stat -c '%a %U %G' $settings/collector.env)" = '640 root root' ]
expect 'the program runs' audiohook-collector --version
systemd-analyze verify $one $two

# Two, side by side, on a simulated Genesys Cloud.
audiohook-collector simulate --listen 127.0.0.1:9000 --rate 600 >/simulate 2>&1 &
simulated=$!
trap 'kill $simulated 2>/dev/null || :' EXIT
until_true 'the simulated Genesys Cloud is there' grep -q '^GENESYS_CLIENT_ID' /simulate
grep -E '^[A-Z_]+=' /simulate >/given
sed -i -e '/^GENESYS_[A-Z_]*=$/d' -e 's/^HTTP_HOST=.*/HTTP_HOST=127.0.0.1/' $settings/collector.env
grep '^GENESYS' /given >>$settings/collector.env
sed -e 's|\(/var/[a-z]*/audiohook-collector\)/|\1-paris/|' -e 's|^INSTANCE_NAME=.*|INSTANCE_NAME=paris|' \
    -e 's|^HTTP_PORT=.*|HTTP_PORT=8078|' $settings/collector.env >$settings/paris.env
sed -i 's|^INSTANCE_NAME=.*|INSTANCE_NAME=first|' $settings/collector.env
cp $settings/collector.env /edited
cp $settings/paris.env /paris
expect 'check passes with the installed settings' audiohook-collector check --env-file $settings/paris.env
systemctl enable --quiet --now $one $two
until_true 'the first collects' collects audiohook-collector
until_true 'the second collects' collects audiohook-collector-paris
expect 'the first has its name in /health' instance 8077 first
expect 'the second has its name in /health' instance 8078 paris
expect 'the first has its name in the metrics' labelled 8077 first
expect 'the second has its name in the metrics' labelled 8078 paris
expect 'each has its state' [ -s /var/lib/private/audiohook-collector/state -a -s /var/lib/private/audiohook-collector-paris/state ]
for unit in $one $two; do
    expect "$unit has its system-call filter" grep -q '^Seccomp:.2$' "/proc/$(pid $unit)/status"
    expect "$unit is a user of its own" [ "$(stat -c %u "/proc/$(pid $unit)")" -gt 60000 ]
    systemd-analyze security --no-pager --threshold=15 $unit | tail -n 1
done

# Upgraded.
first=$(pid $one)
second=$(pid $two)
case $kind in deb) deb -i /packages/2.deb ;; rpm) redhat -U /packages/2.rpm ;; esac
until_true 'an upgrade restarts the first' [ "$(pid $one)" != "$first" ]
until_true 'an upgrade restarts the second' [ "$(pid $two)" != "$second" ]
expect 'both run after it' systemctl --quiet is-active $one $two
expect 'an upgrade keeps edited settings' cmp /edited $settings/collector.env
expect 'an upgrade keeps the settings of instances' cmp /paris $settings/paris.env
lines=$(wc -l </var/log/private/audiohook-collector/audiohook_events.jsonl)
until_true 'it goes on with its file' collects audiohook-collector "$lines"
expect 'no event is there twice' [ -z "$(grep -oh '"id":"[0-9a-f]\{32\}","raw_event"' /var/log/private/audiohook-collector/audiohook_events.jsonl* | sort | uniq -d)" ]

# Removed.
case $kind in deb) deb -r audiohook-collector ;; rpm) redhat -e audiohook-collector ;; esac
expect 'removing stops both' no pgrep -f 'audiohook-collector --env-file'
expect 'removing leaves no link of an enabled unit' [ -z "$(find /etc/systemd -name 'audiohook*')" ]
expect 'removing keeps the events' [ -s /var/log/private/audiohook-collector/audiohook_events.jsonl ]
expect 'removing keeps the state' [ -s /var/lib/private/audiohook-collector/state ]
expect 'removing keeps the settings of instances' cmp /paris $settings/paris.env
left=collector.env
if [ $kind = rpm ]; then left=collector.env.rpmsave; fi
expect "removing keeps the edited settings as $left" cmp /edited $settings/$left
expect 'removing removes the rest' [ -z "$(find /usr /lib -name '*audiohook*')" ]

# Purged; an rpm cannot be, so that what is left is removed by hand.
case $kind in
    deb)
        deb -P audiohook-collector
        expect 'purging removes settings and state' [ -z "$(find /etc /var/lib -name '*audiohook*')" ]
        expect 'purging keeps the events' [ -s /var/log/private/audiohook-collector-paris/audiohook_events.jsonl ]
        ;;
    rpm) rm -rf $settings /var/lib/*/audiohook-collector* /var/lib/audiohook-collector* ;;
esac
echo "$kind: done"
LIFE

for kind in deb rpm; do
    echo "== $kind under systemd"
    { echo '#!/bin/sh'; echo "kind=$kind"; cat "$work/life"; } >"$work/look"
    status=0
    tests/booted.sh "$work/clean" "$work/look" 180 "$work/tree" || status=$?
    [ "$status" -eq 0 ] || fail "$kind: status $status"
done

# Without anything else: what the package has is what the program needs.
echo '== the rpm in an empty root'
mkdir -p "$work/empty"
rpm --root "$work/empty" --initdb
rpm --root "$work/empty" --nodeps --noscripts -i "$work/tree/packages/1.rpm"
rpm --root "$work/empty" -V --nodeps audiohook-collector
chroot "$work/empty" /usr/bin/audiohook-collector --version
rpm --root "$work/empty" --nodeps --noscripts -e audiohook-collector
left=$(find "$work/empty" -name '*audiohook*')
[ -z "$left" ] || fail "left behind: $left"
echo 'packages: done'
