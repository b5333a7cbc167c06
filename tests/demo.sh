#!/usr/bin/env bash
# Runs the demo as a newcomer would and looks at it: within 10 s of its start AudioHook events of several codes stand in
# the file, in /events and on the screen, and it ends well.
#
#   tests/demo.sh PROGRAM [ARGS…]    PROGRAM ARGS… demo … is run; the default is what `make demo` builds
set -euo pipefail
if [ $# -eq 0 ]; then
    set -- "$(dirname "$0")/../target/debug/audiohook-collector"
fi
work=$(mktemp -d)
demo=
cleanup() {
    if [ -n "$demo" ]; then kill "$demo" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap cleanup EXIT

# How many different codes the input holds; none is no failure.
codes() { { grep -o 'AUDIOHOOK-[0-9]*' || true; } | sort -u | wc -l; }

"$@" demo --dir "$work/demo" --for 14 >"$work/screen" 2>&1 &
demo=$!
begin=$SECONDS
while :; do
    in_file=$({ cat "$work"/demo/*.jsonl 2>/dev/null || true; } | codes)
    # The screen names the address; nothing is taken for granted about the port.
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
grep -q 'curl ' "$work/screen" || { echo 'the screen has no curl line to try' >&2; exit 1; }
status=0
wait "$demo" || status=$?
demo=
if [ "$status" -ne 0 ]; then
    cat "$work/screen"
    echo "the demo ended with status $status" >&2
    exit 1
fi
