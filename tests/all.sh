#!/usr/bin/env bash
# Builds and runs all test programs, several at once: most tests wait for something. Prints the tests' results, and the
# whole output of a program that failed; the programs' results and their sum come last. Called by `make test`.
#
#   PROGRAMS_MAX  how many programs run at once
set -euo pipefail
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
work=$(mktemp -d)
trap 'jobs -p | xargs -r kill 2>/dev/null || true; rm -rf "$work"' EXIT

"$cargo" test --locked --no-run --message-format=json >"$work/built"
# The longest are at the end of the alphabet: they begin first.
mapfile -t programs < <(sed -n 's/.*"test":true},"features".*"executable":"\([^"]*\)".*/\1/p' "$work/built" | sort -r)
[ ${#programs[@]} -gt 0 ] || { echo 'cargo names no test program' >&2; exit 1; }
names=(doctests "${programs[@]##*/}")

pids=()
start() {
    while [ "$(jobs -pr | wc -l)" -ge "${PROGRAMS_MAX:-4}" ]; do wait -n || true; done
    "$@" &
    pids+=($!)
}
start "$cargo" test --locked --doc >"$work/doctests" 2>&1
for program in "${programs[@]}"; do
    # The models only compute; the others wait for what must happen in time.
    case ${program##*/} in model-*) prefix=(nice -n 19) ;; *) prefix=() ;; esac
    start "${prefix[@]}" "$program" --show-output >"$work/${program##*/}" 2>&1
done

outputs=()
failed=()
for number in "${!names[@]}"; do
    name=${names[number]}
    outputs+=("$work/$name")
    echo
    echo "     Running $name"
    if wait "${pids[number]}"; then
        grep -E '^(test .* \.\.\. |test result: |skipped: )' "$work/$name" || true
    else
        cat "$work/$name"
        failed+=("${name%-*}")
    fi
done

echo
for number in "${!names[@]}"; do
    echo "${names[number]%-*}: $(sed -n 's/^test result: //p' "${outputs[number]}")"
done
awk '/^test result:/ { passed += $4; failed += $6 } END { print passed + 0 " passed, " failed + 0 " failed" }' "${outputs[@]}"
if [ ${#failed[@]} -gt 0 ]; then echo "failed: ${failed[*]}" >&2; exit 1; fi
