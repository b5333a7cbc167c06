#!/usr/bin/env bash
# Looks at the static binary: nothing of the machine is needed, no path of the machine is in it, it is small, and it runs
# in an empty root folder with only its CA file.
#
#   tests/static.sh BINARY
set -euo pipefail
binary=$1
bytes_max=7700000
fail() {
    echo "$binary: $*" >&2
    exit 1
}

if ldd "$binary" >/dev/null 2>&1 && ! ldd "$binary" 2>&1 | grep -q 'statically linked'; then fail 'is dynamic'; fi
if readelf -d "$binary" | grep -q NEEDED; then fail 'needs shared libraries'; fi
bytes=$(stat -c %s "$binary")
[ "$bytes" -le "$bytes_max" ] || fail "is $bytes bytes, more than $bytes_max"

for path in "$PWD" "$HOME" "${CARGO_HOME:-$HOME/.cargo}" openssl-build .cargo/registry; do
    # A root folder of / or a home of /root alone would be found in the system's own texts.
    [ "${#path}" -gt 1 ] || continue
    if grep -aqF "$path/" "$binary"; then fail "holds a path of this machine: $path"; fi
done

if [ "$(id -u)" -ne 0 ]; then
    echo 'skipped: an empty root folder needs root'
    exit 0
fi
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
cp "$binary" "$root/audiohook-collector"
mkdir -p "$root/etc/ssl/certs" "$root/tmp"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
chroot "$root" /audiohook-collector --version
"$(dirname "$0")/demo.sh" "$(dirname "$0")/in-root.sh" "$root"
echo "$binary: $bytes bytes, and it runs in an empty root folder"
