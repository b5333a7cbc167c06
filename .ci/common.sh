# shellcheck shell=bash
# What .ci/run and .ci/long share: stages that print their time, and Debian packages for what is missing. Sourced by them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TERM_COLOR=never DEBIAN_FRONTEND=noninteractive RUST_BACKTRACE=1
# A test that does not find what it needs is skipped elsewhere, with the reason. Here it fails.
export CI=true
work=$(mktemp -d)
# What still runs beside the stages ends with the script.
trap 'jobs -p | xargs -r kill 2>/dev/null || true; rm -rf "$work"' EXIT
target=${CARGO_TARGET_DIR:-target}
# shellcheck disable=SC2034 # used by both scripts
static=$target/$(uname -m)-unknown-linux-gnu/release/audiohook-collector

stage_name=
stage_started=$SECONDS
stage() {
    end_stage
    stage_name=$1
    stage_started=$SECONDS
    echo
    echo "=== $stage_name (${SECONDS} s since the start)"
}
end_stage() {
    if [ -n "$stage_name" ]; then echo "=== $stage_name: done in $((SECONDS - stage_started)) s"; fi
    stage_name=
}

# need COMMAND PACKAGE…: notes the packages where the command is missing; install_packages installs them all at once.
packages=()
need() {
    local command=$1
    shift
    command -v "$command" >/dev/null 2>&1 || packages+=("$@")
}
install_packages() {
    [ ${#packages[@]} -gt 0 ] || return 0
    echo "installing ${packages[*]}"
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        echo "missing: apt-get install -y ${packages[*]}" >&2
        exit 1
    fi
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${packages[@]}"; } >"$work/apt" 2>&1 ||
        { cat "$work/apt"; exit 1; }
    packages=()
}

# print_tests FILE STATUS: one line for each test, or everything when something failed.
print_tests() {
    if [ "$2" -eq 0 ]; then grep '^test .* \.\.\. ' "$1"; else cat "$1"; fi
}

# summed FILE…: the tests' own results and their sum; fails when a test failed or was skipped.
summed() {
    grep -h '^test result:' "$@"
    awk '/^test result:/ { passed += $4; failed += $6 } END { print passed + 0 " passed, " failed + 0 " failed" }' "$@"
    if grep -h '^skipped: ' "$@" >&2; then echo 'a test was skipped' >&2; return 1; fi
}
