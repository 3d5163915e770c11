#!/bin/bash
# Runs the unit under systemd, without a virtual machine: installs OpenHQM and deploy/systemd into a Debian of mmdebstrap's,
# starts its systemd as the first process of namespaces of its own, and tries what the unit promises: ready, a request, reload,
# the watchdog, a restart behind the socket, and a stop.
#
#   scripts/try-unit.sh [DIRECTORY] [SUITE]
#
# DIRECTORY keeps the Debian between runs. SUITE is bookworm (systemd 252) or trixie (systemd 257). Needs root, cgroup v2 in the
# kernel, and the Debian package mmdebstrap.
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-$(mktemp -d)} suite=${2:-bookworm}
mkdir -p "$work"
work=$(cd "$work" && pwd)
root=$work/$suite
[ -e "$root/usr/lib/systemd/systemd" ] || mmdebstrap --quiet --variant=minbase \
    --include=systemd,systemd-sysv,python3-minimal,python3-venv,ca-certificates "$suite" "$root"
umask 022
rm -rf "$root"/opt/* "$root"/etc/systemd/system/openhqm.* "$root"/etc/openhqm "$root"/var/lib/openhqm "$root"/var/log/journal
# What docs/debian.md says, with this Debian as the machine.
source=$(mktemp -d -p "$root/root")
trap 'rm -rf "$source"' EXIT
git ls-files -z | xargs -0 cp --parents -t "$source"
[ ! -e /etc/pip.conf ] || cp /etc/pip.conf "$root/etc/pip.conf"
[ -z "${PIP_CERT:-}" ] || install -D -m 644 "$PIP_CERT" "$root$PIP_CERT"
cp /etc/resolv.conf "$root/etc/resolv.conf"
env -u PIP_FIND_LINKS chroot "$root" bash -euc "cd ${source#"$root"}; python3 -m venv /opt/openhqm
    /opt/openhqm/bin/pip install --quiet --disable-pip-version-check -c constraints.txt '.[tls]'; /opt/openhqm/bin/twistd --help" > /dev/null
scripts/install-units.sh "$root" > /dev/null
port=$(comm -13 <(ss -Hltn | awk '{sub(/.*:/, "", $4); print $4}' | sort -u) <(seq 10000 19999 | shuf -n 50 | sort) | head -1)
units=$root/etc/systemd/system
mkdir -p "$units/openhqm.service.d" "$units/openhqm.socket.d"
printf '[Service]\nWatchdogSec=3\n' > "$units/openhqm.service.d/quick.conf"
printf '[Socket]\nListenStream=\nListenStream=127.0.0.1:%s\n' "$port" > "$units/openhqm.socket.d/port.conf"
printf 'server: {host: 127.0.0.1, port: %s}\n' "$port" >> "$root/etc/openhqm/cfg.yaml"

# The first process of its own namespaces is systemd. It sees this machine's network, and nothing else of it.
unshare --mount --pid --ipc --uts --cgroup --fork --kill-child --propagation private bash -euc "
    mount --bind '$root' '$root'
    cd '$root'
    mount -t proc proc proc
    mount -t sysfs -o ro sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    mount -t tmpfs -o mode=755 tmpfs run
    mount -t tmpfs tmpfs tmp
    mount -t tmpfs -o mode=755 tmpfs dev
    for each in null zero full random urandom tty; do touch dev/\$each; mount --bind /dev/\$each dev/\$each; done
    mkdir -p dev/shm dev/pts mnt
    ln -s pts/ptmx dev/ptmx
    mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
    pivot_root . mnt
    exec chroot . bash -c 'umount --lazy /mnt; exec env -i container=other /usr/lib/systemd/systemd --unit=multi-user.target'
" > "$work/console" 2>&1 &
first=$!
trap 'kill -KILL "$(pgrep --parent "$first")" 2> /dev/null || true; wait; rm -rf "$source"' EXIT
inside() { nsenter --target "$(pgrep --parent "$first" | head -1)" --all -- "$@"; }
fail() {
    echo "$*" >&2
    inside journalctl --no-pager -n 40 -u openhqm >&2 || cat "$work/console" >&2
    exit 1
}
until_true() { # until_true SECONDS COMMAND...
    local seconds=$1
    shift
    for _ in $(seq $((seconds * 10))); do ! "$@" > /dev/null 2>&1 || return 0; sleep 0.1; done
    fail "not within $seconds s: $*"
}
state() { inside systemctl show --property "$1" --value openhqm; }
answers() {
    [[ $(curl -sS "localhost:$port/api/v1/submit" -H 'Content-Type: application/json' -H 'Prefer: wait=10' -d '{"payload": "done"}') \
        == *'"result":"done"'* ]]
}
# Degraded: a unit of Debian's failed, which wants what there is only in a machine.
booted() { [[ $(inside systemctl is-system-running) =~ ^(running|degraded)$ ]]; }
until_true 60 booted
inside systemd-sysusers
inside systemd-tmpfiles --create
inside systemd-analyze verify openhqm.service openhqm.socket
echo "systemd $(inside systemctl --version | awk 'NR == 1 {print $2}'):" \
    "$(inside systemd-analyze security --no-pager openhqm | tail -1 | sed 's/^[^O]*//')"

inside systemctl start openhqm || fail "it did not start"
answers || fail "it does not answer although systemd calls it ready"
process=$(state MainPID)
echo "ready when systemctl start returns; process $process answers as $(inside stat -c %U "/proc/$process")"

inside systemctl reload openhqm || fail "it was not reloaded"
[ "$(state MainPID)" = "$process" ] && answers || fail "the reload did not keep the process"
echo "reloaded"

inside bash -c "kill -STOP $process"
replaced() { [ "$(state NRestarts)" = 1 ]; }
until_true 30 replaced
until_true 30 answers
echo "the watchdog replaced a process that stood still"

sed -i "s/^server:.*/server: {endpoints: ['systemd:domain=INET:index=0']}\nauth: {type: none}/" "$root/etc/openhqm/cfg.yaml"
printf '[Unit]\nRequires=openhqm.socket\n' > "$units/openhqm.service.d/socket.conf"
inside systemctl daemon-reload
inside systemctl stop openhqm
inside systemctl start openhqm || fail "it did not start behind the socket"
answered=0
inside systemctl restart openhqm &
restarting=$!
while kill -0 "$restarting" 2> /dev/null; do answers || fail "a caller was refused in the restart"; answered=$((answered + 1)); done
wait "$restarting"
answers || fail "it does not answer after the restart"
echo "$answered requests answered in a restart behind the socket, none refused"

inside systemctl stop openhqm openhqm.socket
[ "$(state Result)$(state ExecMainStatus)" = success0 ] || fail "it did not stop in order: $(state Result)"
echo "stopped in order"
