#!/bin/sh
# Reports which build tools are missing, and how to install them.
set -u
missing=0
report() {
    echo "$1 is missing: it is needed to $2. Install it with:" >&2
    echo "    $3" >&2
    missing=1
}
rust_line='sudo apt-get install -y rustup && rustup default stable    (or see https://rustup.rs)'
cargo=${CARGO:-cargo}
if ! command -v "$cargo" >/dev/null 2>&1; then
    report 'cargo (Rust 1.89 or newer)' 'build the collector' "$rust_line"
else
    # A distribution's Rust may be too old, and would only fail with an error about the edition.
    minor=$("$cargo" --version 2>/dev/null | sed -n 's/^cargo 1\.\([0-9]*\)\..*/\1/p')
    if [ "${minor:-0}" -lt 89 ] && [ "$("$cargo" --version 2>/dev/null | cut -c 1-7)" != 'cargo 2' ]; then
        report "Rust 1.89 or newer (here: $("$cargo" --version 2>/dev/null))" 'build the collector' "$rust_line"
    fi
fi
cc=${CC:-cc}
if ! command -v "$cc" >/dev/null 2>&1; then
    report 'a C compiler (cc)' 'build OpenSSL' 'sudo apt-get install -y build-essential'
elif ! printf '#include <stdio.h>\n' | "$cc" -E -x c - >/dev/null 2>&1; then
    report 'the C library (libc6-dev)' 'build OpenSSL' 'sudo apt-get install -y build-essential'
fi
# Debian's perl-base lacks modules that OpenSSL's configuration needs.
if ! perl -MFindBin -MIPC::Cmd -MFile::Compare -MFile::Copy -MTime::Piece -e 1 >/dev/null 2>&1; then
    report 'perl with its modules' 'configure OpenSSL' 'sudo apt-get install -y perl'
fi
command -v make >/dev/null 2>&1 || report 'make' 'build OpenSSL' 'sudo apt-get install -y make'
exit $missing
