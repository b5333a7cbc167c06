#!/bin/sh
# Applies each mutation to a copy of the sources, one at a time, and runs what is to find it: all of them, or those named.
#
#     tests/chaos/mutations/run.sh [NAME…]
#
# The second line of text in a patch says what finds it: `model`, `lib` or `test` with the rest of the command line of
# `cargo test`, or `chaos` with the variables of the oracle. Exit status 0: each was found.
# shellcheck disable=SC2086 # words of a command line
set -eu
cd "$(dirname "$0")/../../.."
folder=$PWD/tests/chaos/mutations
target=${CARGO_TARGET_DIR:-$PWD/target}
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z --cached --others --exclude-standard | xargs -0 -n 200 cp --parents -t "$copy" -p
cd "$copy"
export CARGO_TARGET_DIR="$target"
missed=0

# Built as quickly as can be: each mutation costs a build.
quickly() {
    cargo test -q --locked --config 'profile.dev.package.audiohook-collector.opt-level=0' \
        --config 'profile.dev.package.audiohook-collector.debug=0' "$@"
}

# Runs a command; whether it fails. Its output is in `found`.
fails() { ! "$@" > found 2>&1; }

# Whether what is named finds the mutation that was applied.
search() {
    kind=$1
    shift
    case $kind in
    model) targets="--test model" ;;
    lib) targets=--lib ;;
    test) targets="--test $1"; shift ;;
    chaos) targets="--test chaos" ;;
    *) echo "unknown: $kind"; exit 2 ;;
    esac
    # One that does not compile proves nothing.
    quickly --no-run $targets 2> built || { cat built; exit 2; }
    if [ $kind = chaos ]; then
        (export CLUSTER=fake PATIENCE="${PATIENCE:-40}" "$@"; fails quickly $targets)
    else
        # As many histories as in CI: they end with the first that is wrong.
        (export MODEL_CASES="${MODEL_CASES:-25000}"; fails quickly $targets -- "$@")
    fi
}

# What finds a mutation must find nothing in the sources as they are.
if MODEL_CASES=5000 search model; then
    cat found
    echo "the model tests fail without a mutation"
    exit 2
fi

[ $# -gt 0 ] || set -- $(cd "$folder" && ls | sed -n 's/\.patch$//p')
for name; do
    patch -s -p1 < "$folder/$name.patch" || { echo "$name: does not apply"; missed=$((missed + 1)); continue; }
    by=$(sed -n 's/^Found by: //p' "$folder/$name.patch")
    if search $by; then
        echo "$name: found by $by: $(grep -m1 -E 'WRONG|^test .*FAILED|panicked' found | cut -c1-100)"
    else
        echo "$name: NOT FOUND by $by"
        missed=$((missed + 1))
    fi
    patch -s -p1 -R < "$folder/$name.patch"
done
[ $missed -eq 0 ]
