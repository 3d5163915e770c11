#!/bin/bash
# Installs what systemd needs: the unit, the socket, the user and the directories. It starts and enables nothing.
#
#   scripts/install-units.sh [DESTINATION]
#
# DESTINATION is the root of a file system, / where it is left out. PREFIX is where the virtual environment is, by default
# /opt/openhqm; a package for Debian says PREFIX=/usr/lib/openhqm. An /etc/openhqm/cfg.yaml that is there stays.
set -euo pipefail
cd "$(dirname "$0")/../deploy/systemd"
root=${1:-} root=${root%/} prefix=${PREFIX:-/opt/openhqm}
for unit in openhqm.service openhqm.socket; do
    install -D -m 644 /dev/stdin "$root/usr/lib/systemd/system/$unit" < <(sed "s#/opt/openhqm#$prefix#g" "$unit")
done
install -D -m 644 openhqm.sysusers.conf "$root/usr/lib/sysusers.d/openhqm.conf"
install -D -m 644 openhqm.tmpfiles.conf "$root/usr/lib/tmpfiles.d/openhqm.conf"
[ -e "$root/etc/openhqm/cfg.yaml" ] || install -D -m 640 cfg.yaml "$root/etc/openhqm/cfg.yaml"
install -d "$root/usr/bin"
ln -sfn "$prefix/bin/openhqm" "$root/usr/bin/openhqm"
echo "next, as root: systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload && systemctl enable --now openhqm"
