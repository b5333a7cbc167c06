#!/bin/sh
# Builds the static binary: one file without dependencies on the machine it runs on, and without paths of the machine
# that built it. The last line printed is its path. Called by `make static`.
#
#   TARGET             the target triple; default: this machine's. Another architecture needs its cross compiler,
#                      such as Debian's gcc-aarch64-linux-gnu, and `rustup target add`
#   SOURCE_DATE_EPOCH  the date in OpenSSL's version text; has a fixed default, so that builds are reproducible
set -eu
cd "$(dirname "$0")/../.."
root=$(pwd -P)
target=${TARGET:-$(uname -m)-unknown-linux-gnu}
cargo_home=${CARGO_HOME:-$HOME/.cargo}
target_dir=${CARGO_TARGET_DIR:-$root/target}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1767225600}
export SOURCE_DATE_EPOCH

"${CARGO:-cargo}" fetch --locked --quiet

# If several prefixes match, rustc uses the last one.
flags="-C target-feature=+crt-static --remap-path-prefix=$target_dir=/target --remap-path-prefix=$root=/source"
flags="$flags --remap-path-prefix=$cargo_home=/cargo"
for registry in "$cargo_home"/registry/src/*/; do
    flags="$flags --remap-path-prefix=${registry%/}=/registry"
done
# Get random numbers from the system call: /dev/urandom may be missing, and a static binary has no libc to ask at run time.
flags="$flags --cfg getrandom_backend=\"linux_raw\""

# By default, Cargo would link with this machine's compiler.
if [ "${target%%-*}" != "$(uname -m)" ]; then
    cross=${target%%-*}-linux-gnu-gcc
    command -v "$cross" >/dev/null || { echo "$cross is missing: it is needed to build for $target" >&2; exit 1; }
    name=$(printf %s "$target" | tr a-z- A-Z_)
    eval "export CARGO_TARGET_${name}_LINKER=\${CARGO_TARGET_${name}_LINKER:-$cross}"
fi

# OpenSSL's pointer tables need 0.5 MiB of relocations, or a few KiB if they are packed. In a static binary, glibc
# before 2.36 cannot read packed ones, and only for x86_64 can every linker write them.
libc=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed -n 's/^glibc 2\.\([0-9]*\).*/\1/p')
case $target in
    x86_64-*-gnu) if [ "${libc:-0}" -ge 36 ]; then flags="$flags -C link-arg=-Wl,-z,pack-relative-relocs"; fi ;;
esac

# With sections, the linker can remove the half of OpenSSL that nothing calls. No panic unwinds through C code, so the
# unwind tables are not needed.
CFLAGS="-Os -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables -fno-unwind-tables" \
    OPENSSL_SRC_PERL="$root/src/install/perl-for-openssl" \
    RUSTFLAGS="$flags" \
    "${CARGO:-cargo}" build --release --locked --target "$target" --bin audiohook-collector
echo "$target_dir/$target/release/audiohook-collector"
