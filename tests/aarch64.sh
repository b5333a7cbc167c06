#!/usr/bin/env bash
# Makes both packages for aarch64 with Debian's cross compiler, looks at them with lintian and rpmlint, and runs the program
# of the Debian package under emulation. Needs Rust's target aarch64-unknown-linux-gnu (rustup target add) and Debian's
# packages gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, qemu-user-static, lintian, rpm and rpmlint.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TARGET=aarch64-unknown-linux-gnu
for kind in deb rpm; do
    make --no-print-directory "$kind" >"$work/made" 2>"$work/log" || { tail -n 30 "$work/log"; exit 1; }
    cp "$(tail -n 1 "$work/made")" "$work/package.$kind"
done
lintian --fail-on error "$work/package.deb"
rpmlint --rpmlintrc contrib/packaging/rpmlintrc "$work/package.rpm" | tee "$work/rpmlint"
grep -q ' 0 errors' "$work/rpmlint"
[ "$(dpkg-deb --field "$work/package.deb" Architecture)" = arm64 ]
[ "$(rpm --query --package --queryformat '%{ARCH}' "$work/package.rpm")" = aarch64 ]
dpkg-deb --extract "$work/package.deb" "$work/root"
collector=$work/root/usr/bin/audiohook-collector
qemu-aarch64-static "$collector" version
HTTP_PORT=$((20000 + RANDOM % 10000)) qemu-aarch64-static "$collector" demo --dir "$work/demo" --for 10 >"$work/shown" 2>&1 || { cat "$work/shown"; exit 1; }
events=$(grep -c '"audiohook_operational"' "$work/demo/audiohook_events.jsonl")
echo "aarch64: $events events collected under emulation"
[ "$events" -ge 20 ]
echo 'aarch64: done'
