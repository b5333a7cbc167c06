#!/bin/sh
# Removes the files that `make install` installed below $DESTDIR. Edited settings, events and state are kept.
set -eu
cd "$(dirname "$0")/../.."
: "${bindir:?}" "${sysconfdir:?}" "${datadir:?}" "${docdir:?}" "${man8dir:?}"
: "${unitdir:?}" "${bashcompletiondir:?}" "${zshcompletiondir:?}" "${fishcompletiondir:?}"
root=${DESTDIR:-}
settings=$sysconfdir/audiohook-collector
pristine=$datadir/audiohook-collector

for name in collector.env topics.json; do
    live=$root$settings/$name
    if [ -e "$live" ]; then
        if [ -e "$root$pristine/$name" ] && cmp -s "$live" "$root$pristine/$name"; then
            rm -f "$live"
        else
            echo "kept the edited $settings/$name"
        fi
    fi
    rm -f "$root$pristine/$name"
done
rm -f "$root$bindir/audiohook-collector" \
    "$root$man8dir/audiohook-collector.8" \
    "$root$bashcompletiondir/audiohook-collector" \
    "$root$zshcompletiondir/_audiohook-collector" \
    "$root$fishcompletiondir/audiohook-collector.fish" \
    "$root$docdir/LICENSE" "$root$docdir/README.md" "$root$docdir/CHANGELOG.md"
for unit in audiohook-collector.service audiohook-collector@.service; do
    rm -f "$root$unitdir/$unit" "$root$unitdir/$unit.d/10-growing-delay.conf"
    rmdir "$root$unitdir/$unit.d" 2>/dev/null || true
done
find docs contrib/monitoring -type f | while read -r file; do rm -f "$root$docdir/$file"; done
# Remove this program's folders if they are empty.
for folder in "$settings" "$pristine" "$docdir/docs" "$docdir/contrib/monitoring" "$docdir/contrib" "$docdir"; do
    if [ -d "$root$folder" ]; then rmdir "$root$folder" 2>/dev/null || true; fi
done
