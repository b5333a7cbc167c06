#!/bin/sh
# Makes a Debian package or an rpm of the static binary, with what `make install` puts beside it. Prints its path last.
# Called by `make deb` and `make rpm`; needs dpkg-deb or rpmbuild. The same sources give the same bytes.
#
#   package.sh deb|rpm
#
#   TARGET             the triple, this machine's unless given
#   PACKAGE_RELEASE    the package's own number behind the version, 1 unless given
#   PACKAGER           "Name <address>" of who builds the package
#   SOURCE_DATE_EPOCH  the date of everything in it
set -eu
umask 022
export LC_ALL=C TZ=UTC
cd "$(dirname "$0")/../.."
here=contrib/packaging
kind=$1
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1767225600}
export SOURCE_DATE_EPOCH
target=${TARGET:-$(uname -m)-unknown-linux-gnu}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
release=${PACKAGE_RELEASE:-1}
packager=${PACKAGER:-The AudioHook event collector authors <audiohook-collector@noreply.invalid>}
out=${CARGO_TARGET_DIR:-target}/packages
case $kind in deb) tool=dpkg-deb zsh=/usr/share/zsh/vendor-completions ;; rpm) tool=rpmbuild zsh=/usr/share/zsh/site-functions ;; esac
command -v "$tool" >/dev/null || { echo "$tool is missing; Debian: apt-get install -y dpkg rpm" >&2; exit 1; }

built=$(src/install/static.sh)
printf "%s\n" "$built" >&2
built=$(printf "%s\n" "$built" | tail -n 1)
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
root=$temporary/root
mkdir -p "$out"
out=$(cd "$out" && pwd)

make --no-print-directory install DESTDIR="$root" BIN="$built" prefix=/usr sysconfdir=/etc zshcompletiondir="$zsh" >&2
perl src/install/sbom.pl "$target" >"$root/usr/share/doc/audiohook-collector/sbom.cdx.json"
gzip -n -9 "$root/usr/share/man/man8/audiohook-collector.8"

case $kind in
    deb)
        case ${target%%-*} in x86_64) architecture=amd64 ;; aarch64) architecture=arm64 ;; *) architecture=${target%%-*} ;; esac
        doc=$root/usr/share/doc/audiohook-collector
        # As Debian names them: LICENSE is in `copyright`, the changelog is packed.
        { sed -n '1,/^License:/p' "$here/copyright" && sed -e 's/^$/./' -e 's/^/ /' LICENSE; } >"$doc/copyright"
        gzip -n -9 <CHANGELOG.md >"$doc/changelog.gz"
        {
            printf 'audiohook-collector (%s-%s) unstable; urgency=medium\n\n' "$version" "$release"
            printf '  * See changelog.gz.\n\n -- %s  %s\n' "$packager" "$(date -R -d "@$SOURCE_DATE_EPOCH")"
        } | gzip -n -9 >"$doc/changelog.Debian.gz"
        install -D -m 0644 "$here/lintian-overrides" "$root/usr/share/lintian/overrides/audiohook-collector"
        mkdir "$root/DEBIAN"
        for script in postinst prerm postrm; do install -m 0755 "$here/deb-$script" "$root/DEBIAN/$script"; done
        (cd "$root" && find etc -type f | sort | sed 's|^|/|') >"$root/DEBIAN/conffiles"
        (cd "$root" && find usr -type f | sort | xargs md5sum) >"$root/DEBIAN/md5sums"
        size=$(du -k -s --apparent-size "$root" | cut -f 1)
        sed -e "s|@VERSION@|$version-$release|" -e "s|@ARCHITECTURE@|$architecture|" -e "s|@PACKAGER@|$packager|" \
            -e "s|@SIZE@|$size|" "$here/control" >"$root/DEBIAN/control"
        find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
        package=$out/audiohook-collector_$version-${release}_$architecture.deb
        dpkg-deb --root-owner-group -Zxz --build "$root" "$package" >&2
        ;;
    rpm)
        find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
        rpmbuild -bb --quiet --target "${target%%-*}" --define "_topdir $temporary/rpm" --define "_rpmdir $out" \
            --define "collector_root $root" --define "collector_version $version" --define "collector_release $release" \
            --define "collector_date $(date -d "@$SOURCE_DATE_EPOCH" '+%a %b %d %Y')" --define "packager $packager" "$here/audiohook-collector.spec" >&2
        package=$out/${target%%-*}/audiohook-collector-$version-$release.${target%%-*}.rpm
        ;;
esac
echo "$package"
