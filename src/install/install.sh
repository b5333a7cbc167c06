#!/bin/sh
# Installs the service below $DESTDIR. Called by `make install`, which sets the directories.
#
# An edited settings file is never overwritten. To detect edits, a copy of each installed settings file is kept.
set -eu
# Do not depend on the caller's umask: the service's user must be able to read topics.json. Modes are set explicitly.
umask 022
cd "$(dirname "$0")/../.."
: "${INSTALL_PROGRAM:?}" "${INSTALL_DATA:?}" "${BIN:?}" "${bindir:?}" "${sysconfdir:?}" "${datadir:?}" "${docdir:?}" "${man8dir:?}"
: "${unitdir:?}" "${bashcompletiondir:?}" "${zshcompletiondir:?}" "${fishcompletiondir:?}"
root=${DESTDIR:-}
settings=$sysconfdir/audiohook-collector
pristine=$datadir/audiohook-collector
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT

# put MODE FILE PATH: installs a file, and creates its parent folders.
put() {
    mkdir -p "$(dirname "$root$3")"
    case $1 in
        program) $INSTALL_PROGRAM "$2" "$root$3" ;;
        data) $INSTALL_DATA "$2" "$root$3" ;;
    esac
}

# put_settings MODE FILE NAME: installs a settings file, unless it was edited.
put_settings() {
    live=$root$settings/$3
    kept=$root$pristine/$3
    mkdir -p "$root$settings"
    if [ ! -e "$live" ] || { [ -e "$kept" ] && cmp -s "$live" "$kept"; }; then
        # Write a new file and rename it, so that the settings are never incomplete or readable by others.
        (umask 077 && cp "$2" "$live.new")
        chmod "$1" "$live.new"
        mv -f "$live.new" "$live"
    else
        cmp -s "$live" "$2" || echo "kept the edited $settings/$3; the new default is $pristine/$3"
    fi
    put data "$2" "$pristine/$3"
}

put program "$BIN" "$bindir/audiohook-collector"

unit=$temporary/audiohook-collector.service
sed -e "s|/usr/local/bin/|$bindir/|" -e "s|/etc/audiohook-collector|$settings|" \
    -e "s|/usr/local/share/doc/audiohook-collector|$docdir|" collector.service >"$unit"
# The template unit differs only in the instance's settings file and folders.
instances=$temporary/audiohook-collector@.service
sed -e '1s/.*/# AudioHook event collector, instance NAME, in addition to or instead of audiohook-collector.service./' \
    -e "2s|.*|# Settings: $settings/NAME.env. Events: /var/log/audiohook-collector-NAME.|" \
    -e 's|^Description=.*|& (%i)|' \
    -e 's|^\(LoadCredential=collector.env:.*\)/collector.env$|\1/%i.env|' \
    -e 's|^\(WorkingDirectory=.*\)|\1-%i|' -e 's|^\(StateDirectory=.*\)|\1-%i|' -e 's|^\(LogsDirectory=.*\)|\1-%i|' \
    "$unit" >"$instances"
# systemd before 254 would only warn about the drop-in. With DESTDIR, the target machine's version is unknown.
version=$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
for file in "$unit" "$instances"; do
    put data "$file" "$unitdir/${file##*/}"
    if [ -n "$root" ] || [ "${version:-254}" -ge 254 ]; then
        put data src/install/10-growing-delay.conf "$unitdir/${file##*/}.d/10-growing-delay.conf"
    fi
done

sed -e '1s/.*/# Settings of the audiohook-collector service. Fill in the first three, then:/' \
    -e '1a #     systemctl enable --now audiohook-collector' \
    -e "s|^TOPICS_FILE=.*|TOPICS_FILE=$settings/topics.json|" \
    -e 's|^OUTPUT_FILE=.*|OUTPUT_FILE=/var/log/audiohook-collector/audiohook_events.jsonl|' \
    -e 's|^STATE_FILE=.*|STATE_FILE=/var/lib/audiohook-collector/state|' .env.example >"$temporary/collector.env"
put_settings 0640 "$temporary/collector.env" collector.env
put_settings 0644 topics.json topics.json

# In roff, a hyphen that can be copied is written with a backslash.
manual_settings=$(printf '%s' "$settings" | sed 's|-|\\\\-|g')
sed -e "s|/etc/audiohook\\\\-collector|$manual_settings|g" src/install/audiohook-collector.8 >"$temporary/manual"
put data "$temporary/manual" "$man8dir/audiohook-collector.8"
put data src/install/completion.bash "$bashcompletiondir/audiohook-collector"
put data src/install/completion.zsh "$zshcompletiondir/_audiohook-collector"
put data src/install/completion.fish "$fishcompletiondir/audiohook-collector.fish"
put data LICENSE "$docdir/LICENSE"
put data README.md "$docdir/README.md"
put data CHANGELOG.md "$docdir/CHANGELOG.md"
find docs contrib/monitoring -type f | while read -r file; do put data "$file" "$docdir/$file"; done

if [ -z "$root" ]; then
    echo "installed; fill in the credentials in $settings/collector.env, then: systemctl enable --now audiohook-collector"
fi
