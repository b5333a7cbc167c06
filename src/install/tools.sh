#!/bin/sh
# Says which of the four things that a build needs is missing (make runs already), with the line that installs it.
set -u
missing=0
say() {
    echo "$1 is missing: it is needed to $2. Install it with:" >&2
    echo "    $3" >&2
    missing=1
}
rust_line='sudo apt-get install -y rustup && rustup default stable    (or see https://rustup.rs)'
command -v "${CARGO:-cargo}" >/dev/null 2>&1 || say 'cargo (Rust 1.89 or newer)' 'build the collector' "$rust_line"
cc=${CC:-cc}
if ! command -v "$cc" >/dev/null 2>&1; then
    say 'a C compiler (cc)' 'build OpenSSL' 'sudo apt-get install -y build-essential'
elif ! printf '#include <stdio.h>\n' | "$cc" -E -x c - >/dev/null 2>&1; then
    say 'the C library (libc6-dev)' 'build OpenSSL' 'sudo apt-get install -y build-essential'
fi
# Debian's perl-base is a perl, but not enough of one to configure OpenSSL.
if ! perl -MFindBin -MIPC::Cmd -MFile::Compare -MFile::Copy -MTime::Piece -e 1 >/dev/null 2>&1; then
    say 'perl with its modules' 'configure OpenSSL' 'sudo apt-get install -y perl'
fi
command -v make >/dev/null 2>&1 || say 'make' 'build OpenSSL' 'sudo apt-get install -y make'
exit $missing
