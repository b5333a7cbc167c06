#!/bin/sh
# Builds the static binary: one file that needs nothing of the machine that it runs on, and holds no path of the machine
# that built it. Prints its path last. Called by `make static`.
#
#   TARGET             the triple, this machine's unless given; another architecture needs its cross compiler, Debian's
#                      gcc-aarch64-linux-gnu for example, and `rustup target add` with the triple
#   SOURCE_DATE_EPOCH  the date that OpenSSL writes into itself: fixed, so that every build is the same
set -eu
cd "$(dirname "$0")/../.."
root=$(pwd -P)
target=${TARGET:-$(uname -m)-unknown-linux-gnu}
cargo_home=${CARGO_HOME:-$HOME/.cargo}
target_dir=${CARGO_TARGET_DIR:-$root/target}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1767225600}
export SOURCE_DATE_EPOCH

"${CARGO:-cargo}" fetch --locked --quiet

# Of several prefixes that fit, rustc takes the last.
flags="-C target-feature=+crt-static --remap-path-prefix=$target_dir=/target --remap-path-prefix=$root=/source"
flags="$flags --remap-path-prefix=$cargo_home=/cargo"
for registry in "$cargo_home"/registry/src/*/; do
    flags="$flags --remap-path-prefix=${registry%/}=/registry"
done
# Random numbers by the system call: there may be no /dev/urandom, and no libc to ask in another way.
flags="$flags --cfg getrandom_backend=\"linux_raw\""

# Cargo would link with this machine's compiler.
if [ "${target%%-*}" != "$(uname -m)" ]; then
    cross=${target%%-*}-linux-gnu-gcc
    command -v "$cross" >/dev/null || { echo "$cross is missing: it is needed to build for $target" >&2; exit 1; }
    name=$(printf %s "$target" | tr a-z- A-Z_)
    eval "export CARGO_TARGET_${name}_LINKER=\${CARGO_TARGET_${name}_LINKER:-$cross}"
fi

# OpenSSL's tables of pointers make half a MiB of relocations; packed, a few KiB. A C library older than 2.36 cannot read
# the packed ones in a static binary, and only for x86_64 does every linker write them.
libc=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed -n 's/^glibc 2\.\([0-9]*\).*/\1/p')
case $target in
    x86_64-*-gnu) if [ "${libc:-0}" -ge 36 ]; then flags="$flags -C link-arg=-Wl,-z,pack-relative-relocs"; fi ;;
esac

# Sections let the linker leave out what nothing calls: half of OpenSSL. No panic unwinds through C, so it needs no tables
# for that.
CFLAGS="-Os -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables -fno-unwind-tables" \
    OPENSSL_SRC_PERL="$root/src/install/perl-for-openssl" \
    RUSTFLAGS="$flags" \
    "${CARGO:-cargo}" build --release --locked --target "$target" --bin audiohook-collector
echo "$target_dir/$target/release/audiohook-collector"
