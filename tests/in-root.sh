#!/usr/bin/env bash
# Runs the binary in ROOT with the given arguments; a --dir is taken as one outside, and is made to be one inside.
#
#   tests/in-root.sh ROOT ARGS…
set -euo pipefail
root=$1
shift
args=()
while [ $# -gt 0 ]; do
    if [ "$1" = --dir ]; then
        # The caller looks for the files where it asked for them.
        mkdir -p "$root/data"
        ln -sfn "$root/data" "$2"
        args+=(--dir /data)
        shift 2
    else
        args+=("$1")
        shift
    fi
done
exec chroot "$root" /audiohook-collector "${args[@]}"
