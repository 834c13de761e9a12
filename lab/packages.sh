# Installs what is missing of the Debian packages in packages.txt: `sh lab/packages.sh lab`, or `lab test` for all.
#
# Says what it installs, and asks first where it needs sudo. The servers among them are not started, now or at boot: tests
# start their own.
set -eu
cd "$(dirname "$0")"

missing=
for package in $(for group; do sed -n "s/^$group: //p" packages.txt; done); do
    dpkg-query --show --showformat '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
        missing="$missing $package"
done
[ -n "$missing" ] || exit 0
install="apt-get install --yes --no-install-recommends$missing"

if [ "$(id -u)" != 0 ]; then
    printf 'Debian packages are missing:%s\nInstall them with sudo? [y/N] ' "$missing"
    read -r answer || answer=
    case $answer in [Yy]*) exec sudo sh packages.sh "$@" ;; esac
    printf '\nAs root: %s\n' "$install" >&2
    exit 1
fi

echo "Installing Debian packages:$missing"
# Debian asks it before it starts a server. Whoever has one has decided already. It decides nothing when this has ended.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nkill -0 %d 2>/dev/null && exit 101 || exit 0\n' "$$" > "$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet --quiet
# Many lines, which only matter where it fails.
output=$($install --quiet --quiet 2>&1) || { code=$?; printf '%s\n' "$output" >&2; exit $code; }
servers=$(dpkg-query --listfiles $missing | sed -n 's|^/etc/init.d/||p')
for server in $servers; do
    update-rc.d "$server" disable
done
[ -z "$servers" ] || echo "Not started, now or at boot: $(echo $servers). This starts one: systemctl enable --now NAME"
