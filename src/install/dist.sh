#!/bin/sh
# Packs the static binary and the files for an installation. The build is reproducible: file names are sorted, the owner
# is fixed, and times are SOURCE_DATE_EPOCH. The last two lines printed are the paths of the archive and its checksum.
# Called by `make dist`.
set -eu
umask 022
export LC_ALL=C TZ=UTC
cd "$(dirname "$0")/../.."
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1767225600}
export SOURCE_DATE_EPOCH
target=${TARGET:-$(uname -m)-unknown-linux-gnu}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
name=audiohook-collector-$version-$target
out=${CARGO_TARGET_DIR:-target}/dist

built=$(src/install/static.sh)
printf "%s\n" "$built" >&2
built=$(printf "%s\n" "$built" | tail -n 1)
rm -rf "$out"
mkdir -p "$out/$name/src/install"
# `make install` in the unpacked folder installs the binary from there.
cp "$built" "$out/$name/audiohook-collector"
cp Makefile collector.service .env.example topics.json README.md CHANGELOG.md LICENSE "$out/$name/"
mkdir -p "$out/$name/contrib"
cp -R docs "$out/$name/"
cp -R contrib/monitoring "$out/$name/contrib/"
for file in install.sh uninstall.sh tools.sh 10-growing-delay.conf audiohook-collector.8 \
    completion.bash completion.zsh completion.fish; do
    cp "src/install/$file" "$out/$name/src/install/"
done
perl src/install/sbom.pl "$target" >"$out/$name/sbom.cdx.json"
(cd "$out/$name" && find . -type f | sort | xargs sha256sum) >"$out/SHA256SUMS"
mv "$out/SHA256SUMS" "$out/$name/"

tar --create --directory "$out" --sort=name --format=ustar --owner=0 --group=0 --numeric-owner \
    --mode='u+rwX,go=rX' --mtime="@$SOURCE_DATE_EPOCH" "$name" | gzip -n -9 >"$out/$name.tar.gz"
(cd "$out" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
echo "$out/$name.tar.gz"
echo "$out/$name.tar.gz.sha256"
