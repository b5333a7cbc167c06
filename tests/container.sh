#!/usr/bin/env bash
# Builds the Dockerfile's image and runs it as compose.yaml does: read-only root, no capabilities, a volume, an env file.
# The base image is made here, of a Debian root and this machine's Rust; compose.yaml is read by podman-compose, from PyPI.
# Needs root, pip, and Debian's packages buildah, podman,
# runc and debootstrap; storage of its own, of which nothing is left.
#
#   tests/container.sh [MIRROR]
set -euo pipefail
cd "$(dirname "$0")/.."
mirror=${1:-http://deb.debian.org/debian}
work=$(mktemp -d)
cat >"$work/storage.conf" <<CONF
[storage]
driver = "overlay"
graphroot = "$work/store"
runroot = "$work/run"
CONF
printf '[engine]\ncgroup_manager = "cgroupfs"\nruntime = "runc"\nevents_logger = "file"\n' >"$work/containers.conf"
# The health check is run by hand: there may be no systemd for its timer.
export DISABLE_HC_SYSTEMD=true
export CONTAINERS_STORAGE_CONF=$work/storage.conf CONTAINERS_CONF=$work/containers.conf
cleanup() {
    # It shares the network of the simulated service, which cannot go before it.
    podman rm --force --time 0 collector >/dev/null 2>&1 || true
    podman rm --all --force --time 0 >/dev/null 2>&1 || true
    buildah rm --all >/dev/null 2>&1 || true
    umount "$work/store/overlay" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
fail() {
    echo "$*" >&2
    exit 1
}
expect() { local what=$1; shift; if "$@"; then echo "holds: $what"; else fail "not: $what"; fi; }
until_true() {
    local what=$1 begin=$SECONDS
    shift
    until "$@"; do
        if [ $((SECONDS - begin)) -ge 30 ]; then podman logs "$name" >&2 || true; fail "not within 30 s: $what"; fi
        sleep 0.2
    done
    echo "holds: $what"
}

# logs NAME PATTERN: whether a container has printed it.
logs() { podman logs "$1" 2>&1 | grep -q "$2"; }
hardened=(--read-only --read-only-tmpfs=false --cap-drop ALL --security-opt no-new-privileges --pids-limit 64 --memory 128m)
run() {
    name=$1
    shift
    podman run --detach --name "$name" --ulimit nofile=4096 --ulimit nproc=1024 "$@" >/dev/null
}

echo '== compose.yaml'
python3 -m pip install --quiet --root-user-action ignore --target "$work/compose" podman-compose==1.5.0
PYTHONPATH=$work/compose python3 -m podman_compose --profile search --profile demo config >"$work/composed"
for line in '  collector:' '  demo:' '  opensearch:' '    read_only: true' '    - path: .env'; do
    expect "compose knows \"${line#"${line%%[! ]*}"}\"" grep -qxF -- "$line" "$work/composed"
done

echo '== base image'
from=$(sed -n 's/^FROM \(.*\) AS build/\1/p' Dockerfile)
debootstrap --variant=minbase --include=ca-certificates,gcc,libc6-dev "${from##*-}" "$work/base" "$mirror" >"$work/log" 2>&1 ||
    { tail -n 20 "$work/log"; exit 1; }
toolchain=$(rustc --print sysroot)
cp -R "$toolchain/bin" "$toolchain/lib" "$work/base/usr/local/"
# A proxy that this machine trusts may be in front of the registry.
cp /etc/ssl/certs/ca-certificates.crt "$work/base/etc/ssl/certs/"
tar -C "$work/base" -c . | podman import --change 'ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin' \
    --change 'ENV CARGO_HOME=/usr/local/cargo' - "docker.io/library/$from" >/dev/null
rm -rf "$work/base"

echo '== build'
begin=$SECONDS
buildah build --isolation chroot --pull=never --format docker --tag audiohook-collector . >"$work/log" 2>&1 ||
    { tail -n 40 "$work/log"; exit 1; }
echo "built in $((SECONDS - begin)) s"
podman images --format '{{.Size}}' localhost/audiohook-collector
image=localhost/audiohook-collector

echo '== files'
podman create --name files $image >/dev/null
podman export files | tar -t -v --numeric-owner >"$work/files"
grep -vE ' (dev|proc|sys|run)/' "$work/files"
mode() { grep -qE "^$1 .* $2\$" "$work/files"; }
expect '/tmp is for everybody' mode 'drwxrwxrwt +0/0' tmp/
expect '/data is the collector'\''s' mode 'drwxr-x--- +65532/65532' data/
expect 'the program is root'\''s' mode '-rwxr-xr-x +0/0' usr/local/bin/audiohook-collector
expect 'there is no shell' [ "$(grep -cE ' (bin|usr/bin|sbin)/' "$work/files")" -eq 0 ]

echo '== demo, with nothing but the image'
run plain --network none $image demo --for 8
expect 'it ends with status 0' [ "$(podman wait plain)" -eq 0 ]
expect 'it shows events' [ "$(podman logs plain 2>&1 | grep -c AUDIOHOOK-)" -ge 3 ]

echo '== demo, hardened'
run demo "${hardened[@]}" --network none --tmpfs /tmp:mode=1777,size=64m --env HTTP_HOST=0.0.0.0 $image demo --for 8
expect 'it ends with status 0' [ "$(podman wait demo)" -eq 0 ]
expect 'it shows events' [ "$(podman logs demo 2>&1 | grep -c AUDIOHOOK-)" -ge 3 ]

echo '== a collection'
run cloud "${hardened[@]}" --network none $image simulate --rate 600
until_true 'the simulated service is there' logs cloud '^GENESYS_CLIENT_ID'
podman logs cloud 2>&1 | grep -E '^[A-Z_]+=' >"$work/env"
podman volume create events >/dev/null
volume=$(podman volume inspect --format '{{.Mountpoint}}' events)
collector=("${hardened[@]}" --network container:cloud --env-file "$work/env" --volume events:/data "$image")
run collector "${collector[@]}"
records() { cat "$volume"/audiohook_events.jsonl* 2>/dev/null | grep -c '"audiohook_operational"' || true; }
more_than() { [ "$(records)" -gt "$1" ]; }
until_true 'events are in the volume' more_than 20
until_true 'the health check succeeds' podman healthcheck run collector
ls -ln "$volume"
expect 'everything in the volume is the collector'\''s' [ -z "$(find "$volume" ! -uid 65532 -o ! -gid 65532)" ]
pid=$(podman inspect --format '{{.State.Pid}}' collector)
expect 'it is not root' grep -qE '^Uid:.65532' "/proc/$pid/status"
expect 'it has no capabilities' grep -qE '^CapBnd:.0+$' "/proc/$pid/status"
begin=$SECONDS
podman stop --time 10 collector >/dev/null
expect 'SIGTERM ends it within 10 s, with status 0' [ "$(podman inspect --format '{{.State.ExitCode}}' collector)" -eq 0 ]
echo "stopped in $((SECONDS - begin)) s"
podman rm collector >/dev/null
before=$(records)
run collector "${collector[@]}"
until_true 'another container goes on with the volume' more_than "$before"
expect 'no event is there twice' [ -z "$(cat "$volume"/audiohook_events.jsonl* | grep -o '"id":"[0-9a-f]\{32\}","raw_event"' | sort | uniq -d)" ]
podman stop --time 10 collector >/dev/null

echo '== a settings mistake'
run mistake "${hardened[@]}" --network none --env-file "$work/env" --env HTPP_PORT=1 $image
expect 'it ends with status 2' [ "$(podman wait mistake)" -eq 2 ]
podman logs mistake
expect 'it names the setting that was meant' logs mistake HTTP_PORT
echo 'container: done'
