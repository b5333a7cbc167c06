#!/bin/sh
# Installs the service below $DESTDIR. Called by `make install`, which gives the directories.
#
# An edited settings file is never overwritten: a copy of what was installed tells the edited from the untouched.
set -eu
# Whatever the caller's is: the service's own user must reach topics.json. Each file gets its mode by name.
umask 022
cd "$(dirname "$0")/../.."
: "${INSTALL_PROGRAM:?}" "${INSTALL_DATA:?}" "${BIN:?}" "${bindir:?}" "${sysconfdir:?}" "${datadir:?}" "${docdir:?}" "${man8dir:?}"
: "${unitdir:?}" "${bashcompletiondir:?}" "${zshcompletiondir:?}" "${fishcompletiondir:?}"
root=${DESTDIR:-}
settings=$sysconfdir/audiohook-collector
pristine=$datadir/audiohook-collector
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT

# put MODE FILE PATH: installs a file, making the folders above it.
put() {
    mkdir -p "$(dirname "$root$3")"
    case $1 in
        program) $INSTALL_PROGRAM "$2" "$root$3" ;;
        data) $INSTALL_DATA "$2" "$root$3" ;;
    esac
}

# put_settings MODE FILE NAME: the same for a file that may be edited.
put_settings() {
    live=$root$settings/$3
    kept=$root$pristine/$3
    mkdir -p "$root$settings"
    if [ ! -e "$live" ] || { [ -e "$kept" ] && cmp -s "$live" "$kept"; }; then
        # Written beside and renamed: a settings file is never half there, nor readable for a moment.
        (umask 077 && cp "$2" "$live.new")
        chmod "$1" "$live.new"
        mv -f "$live.new" "$live"
    else
        cmp -s "$live" "$2" || echo "kept $settings/$3, which was edited; the new default is $pristine/$3"
    fi
    put data "$2" "$pristine/$3"
}

put program "$BIN" "$bindir/audiohook-collector"

unit=$temporary/audiohook-collector.service
sed -e "s|/usr/local/bin/|$bindir/|" -e "s|/etc/audiohook-collector|$settings|" \
    -e "s|/usr/local/share/doc/audiohook-collector|$docdir|" collector.service >"$unit"
# The template differs in the instance's settings file and folders alone.
instances=$temporary/audiohook-collector@.service
sed -e '1s/.*/# One more AudioHook event collector, NAME, beside audiohook-collector.service or without it./' \
    -e "2s|.*|# Settings: $settings/NAME.env. Events: /var/log/audiohook-collector-NAME.|" \
    -e 's|^Description=.*|& (%i)|' \
    -e 's|^\(LoadCredential=collector.env:.*\)/collector.env$|\1/%i.env|' \
    -e 's|^\(WorkingDirectory=.*\)|\1-%i|' -e 's|^\(StateDirectory=.*\)|\1-%i|' -e 's|^\(LogsDirectory=.*\)|\1-%i|' \
    "$unit" >"$instances"
# Where systemd is older than 254 the drop-in would only be warned of. Below DESTDIR another machine's systemd counts.
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

# A manual spells a hyphen that is to be copied with a backslash.
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
