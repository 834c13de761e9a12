# Puts the programs and Sieve scripts in $DESTDIR$VENV in the place of those that deliver now; `make install` runs this.
#
# Each is replaced by a rename: whoever opens one gets the whole old one or the whole new one. An old program goes on in
# the environment it was started in, from which it may load more at any time. So that one stays until the next upgrade.
set -eu

lib=$DESTDIR$LIB
new=$DESTDIR$VENV
before=$(sed -n '1s|^#!\(.*\)/bin/python .*|\1|p' "$lib/worker" 2>/dev/null || true)

for script in "$new"/sieve/*.sieve; do
    name=${script##*/}
    case $name in
        guard.sieve) placed=$DESTDIR$GUARD ;;
        *) placed=$DESTDIR$SHARE/sieve/$name ;;
    esac
    # One that has not changed keeps its time, so that its compiled form serves without a break.
    cmp -s "$script" "$placed" || mv -f "$script" "$placed"
    # A compiled script holds its path, and Dovecot does not use one that was compiled somewhere else. Until the new one
    # is there, Dovecot sees that the old one is older than its script, and compiles the script for each message.
    if [ -z "$DESTDIR" ]; then
        $SIEVEC "$placed" "$new/sieve/$name.svbin"
        chmod 644 "$new/sieve/$name.svbin"
        mv -f "$new/sieve/$name.svbin" "${placed%.sieve}.svbin"
    fi
done

for name in filter-bin/cryptomail execute-bin/cryptomail imap-bin/cryptomail imap-bin/cryptomail-enroll \
    saved-bin/cryptomail-saved worker; do
    mv -f "$new/$name" "$lib/$name"
done
mv -f "$new/bin/cryptomail" "$DESTDIR$PREFIX/bin/cryptomail"
rm -rf "$new/sieve"
rmdir "$new/filter-bin" "$new/execute-bin" "$new/imap-bin" "$new/saved-bin"

for old in "$lib"/venv*; do
    path=$LIB/${old##*/}
    if [ "$path" != "$VENV" ] && [ "$path" != "$before" ] && ! grep -qs "^$path/bin/python" /proc/[0-9]*/cmdline; then
        rm -rf "$old"
    fi
done
