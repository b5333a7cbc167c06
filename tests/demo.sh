#!/usr/bin/env bash
# Runs the demo and checks it: within 10 s of its start AudioHook events of several codes are in the file, in /events and
# on the screen, and it exits with status 0.
#
#   tests/demo.sh                    runs `make demo`, as a newcomer does
#   tests/demo.sh PROGRAM [ARGS…]    runs PROGRAM ARGS… demo …
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
demo=
cleanup() {
    if [ -n "$demo" ]; then kill "$demo" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap cleanup EXIT

# The number of different codes in the input.
codes() { { grep -o 'AUDIOHOOK-[0-9]*' || true; } | sort -u | wc -l; }

options=(--dir "$work/demo" --for 12)
if [ $# -gt 0 ]; then
    set -- "$@" demo "${options[@]}"
else
    (cd "$root" && cargo build --locked)
    set -- make --no-print-directory -C "$root" demo ARGS="${options[*]}"
fi
"$@" >"$work/screen" 2>&1 &
demo=$!
begin=$SECONDS
while :; do
    in_file=$({ cat "$work"/demo/*.jsonl 2>/dev/null || true; } | codes)
    # The screen names the address: the usual port may be taken.
    address=$(grep -oE 'http://[^ /]+:[0-9]+/events' "$work/screen" | head -n 1 || true)
    in_answer=0
    if [ -n "$address" ]; then in_answer=$({ curl -fsS -m 2 "$address" 2>/dev/null || true; } | codes); fi
    on_screen=$(codes <"$work/screen")
    if [ "$in_file" -ge 3 ] && [ "$in_answer" -ge 3 ] && [ "$on_screen" -ge 3 ]; then break; fi
    if [ $((SECONDS - begin)) -ge 10 ] || ! kill -0 "$demo" 2>/dev/null; then
        cat "$work/screen"
        echo "after $((SECONDS - begin)) s: $in_file codes in the file, $in_answer in /events, $on_screen on the screen" >&2
        exit 1
    fi
    sleep 0.2
done
echo "after $((SECONDS - begin)) s: $in_file codes in the file, $in_answer in /events, $on_screen on the screen"
grep -q 'curl ' "$work/screen" || { echo 'the screen shows no curl command' >&2; exit 1; }
status=0
wait "$demo" || status=$?
demo=
if [ "$status" -ne 0 ]; then
    cat "$work/screen"
    echo "the demo ended with status $status" >&2
    exit 1
fi
