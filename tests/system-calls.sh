#!/usr/bin/env bash
# Runs a program under strace and says which of its system calls the unit's SystemCallFilter= would refuse: the sandbox's
# filter, tried where no systemd runs. Status 1 with any.
#
#   tests/system-calls.sh PROGRAM [ARGS…]
set -euo pipefail
unit=$(dirname "$0")/../collector.service
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The calls of a set, its inner sets included.
members() {
    local name
    while read -r name; do
        case $name in
            @*) members "$name" ;;
            '' | '#'*) ;;
            *) echo "$name" ;;
        esac
    done < <(systemd-analyze syscall-filter "$1" | tail -n +2 | tr -d ' ')
}

# As systemd reads it: the first line allows, a line with ~ takes away again; @default is always allowed.
members @default >"$work/allowed"
while read -r value; do
    for name in ${value#\~}; do
        members "$name"
    done >"$work/these"
    if [ "${value#\~}" = "$value" ]; then
        cat "$work/these" >>"$work/allowed"
    else
        sort -u "$work/allowed" | comm -23 - <(sort -u "$work/these") >"$work/rest"
        mv "$work/rest" "$work/allowed"
    fi
done < <(sed -n 's/^SystemCallFilter=//p' "$unit")
sort -u -o "$work/allowed" "$work/allowed"

status=0
strace -f -qq -o "$work/trace" -- "$@" >"$work/output" 2>&1 || status=$?
if [ "$status" -ne 0 ]; then
    cat "$work/output"
    echo "the program ended with status $status" >&2
    exit 1
fi
# A failed call of a kind that the filter refuses with EPERM is used all the same; what matters is that it is made.
sed -En 's/^[0-9]+ +([a-z_0-9]+)\(.*/\1/p' "$work/trace" | sort -u >"$work/used"
# strace begins with the execve that systemd makes before the filter stands.
comm -23 "$work/used" "$work/allowed" | grep -vx execve >"$work/refused" || true
if [ -s "$work/refused" ]; then
    echo "the unit would refuse: $(tr '\n' ' ' <"$work/refused")" >&2
    exit 1
fi
echo "all $(wc -l <"$work/used") kinds of system calls are allowed by the unit"
