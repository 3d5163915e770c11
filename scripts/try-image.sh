#!/bin/bash
# Builds the image of a variant without a registry or Docker, runs it as its own user with a read-only root, submits a
# request, reads the answer, and prints the size of the image and how long a start took until it was ready.
#
#   scripts/try-image.sh VARIANT [DIRECTORY] [ARCHITECTURE]
#
# The base is a Debian of mmdebstrap's, with its Python 3.11 in the place of python:3.12-slim: what it proves are the steps of the
# Dockerfile and the packages of the variant. DIRECTORY keeps the base between runs. ARCHITECTURE is one of Debian's, amd64 or
# arm64; another than that of this machine needs the Debian package qemu-user-static, and binfmt_misc. Needs root, and the Debian
# packages buildah, crun and mmdebstrap.
set -euo pipefail
cd "$(dirname "$0")/.."
variant=${1:?which variant?} work=${2:-$(mktemp -d)} architecture=${3:-$(dpkg --print-architecture)} server=
mkdir -p "$work"
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
# Each architecture has images of its own: they have one name, that of the Dockerfile.
store=$work/$architecture
mkdir -p "$store"
buildah() { command buildah --root "$store/root" --runroot "$store/runroot" "$@"; }
if ! buildah inspect --type image docker.io/library/python:3.12-slim > /dev/null 2>&1; then
    [ -e "$store/base.tar" ] || mmdebstrap --quiet --variant=minbase --architectures="$architecture" \
        --include=python3-minimal,python3-venv,ca-certificates bookworm "$store/base.tar"
    base=$(buildah from scratch)
    buildah config --arch "$architecture" "$base"
    buildah add --quiet "$base" "$store/base.tar" /
    buildah run "$base" -- ln -sf /usr/bin/python3 /usr/bin/python
    buildah commit --quiet --rm "$base" docker.io/library/python:3.12-slim > /dev/null
fi
mounts=()
[ ! -e /etc/pip.conf ] || mounts+=(-v /etc/pip.conf:/etc/pip.conf:ro)
[ -z "${PIP_CERT:-}" ] || mounts+=(-v "$PIP_CERT:$PIP_CERT:ro" --env "PIP_CERT=$PIP_CERT")
for name in PIP_INDEX_URL PIP_TRUSTED_HOST; do [ -z "${!name:-}" ] || mounts+=(--env "$name=${!name}"); done
buildah bud --quiet --pull-never --platform "linux/$architecture" --format docker --network host "${mounts[@]}" --build-arg "VARIANT=$variant" \
    -t "openhqm:$variant" . > /dev/null
container=$(buildah from --pull-never --platform "linux/$architecture" "openhqm:$variant")
trap 'kill "$server" 2> /dev/null || true; wait; buildah rm "$container" > /dev/null' EXIT
root=$(buildah mount "$container")
added=$(du -sm "$root/opt/openhqm" | cut -f1) whole=$(du -smx "$root" | cut -f1)
mount --bind "$root" "$root"
mount -o remount,ro,bind "$root"
mount -t tmpfs -o uid=10001,gid=10001,mode=0700 tmpfs "$root/data"
trap 'kill "$server" 2> /dev/null || true; wait; umount --lazy "$root/data" "$root"; buildah rm "$container" > /dev/null' EXIT
# Two ports that nobody has now, below those that the system gives to outgoing connections.
free_ports() { comm -13 <(ss -Hltn | awk '{sub(/.*:/, "", $4); print $4}' | sort -u) <(seq 10000 19999 | shuf -n 50 | sort) | head -2; }
{ read -r door && read -r admin; } < <(free_ports)
# An array and no function: a function in the background is a shell of its own, and its number not that of the program.
inside=(
    chroot --userspec=10001:10001 "$root" /usr/bin/env -i PATH=/opt/openhqm/bin:/usr/local/bin:/usr/bin:/bin
    PYTHONDONTWRITEBYTECODE=1 "OPENHQM_SERVER__PORT=$door" "OPENHQM_ADMIN__PORT=$admin" OPENHQM_AUTH__TYPE=none
    OPENHQM_WORKER__HANDLER=echo 'OPENHQM_QUEUE__CONNECTION__SQLITE={"path": "/data"}'
)
start() { # starts it, and sets how many milliseconds it took until it was ready
    local before
    before=$(date +%s%N)
    "${inside[@]}" twistd -n --pidfile= openhqm > "$work/log" 2>&1 &
    server=$!
    for _ in $(seq 6000); do
        ! curl -fs "localhost:$admin/health/ready" > /dev/null || break
        kill -0 "$server" 2> /dev/null || { cat "$work/log"; exit 1; }
        sleep 0.01
    done
    milliseconds=$((($(date +%s%N) - before) / 1000000))
}
stop() {
    kill "$server"
    wait "$server" || true
}
# The first start reads everything from the disk, where the machine lets its cache be dropped; the others do not.
sync
{ echo 1 > /proc/sys/vm/drop_caches; } 2> /dev/null || true
start
first=$milliseconds fastest=$milliseconds
stop
"${inside[@]}" twistd -n --pidfile= openhqm --check > /dev/null
for _ in $(seq 4); do
    start
    ((milliseconds > fastest)) || fastest=$milliseconds
    stop
done
start
"${inside[@]}" openhqm-healthcheck
answer=$(curl -sS "localhost:$door/api/v1/submit" -H 'Content-Type: application/json' -H 'Prefer: wait=10' -d '{"payload": "done"}')
[[ $answer == *'"result":"done"'* ]] || { echo "it answered $answer"; cat "$work/log"; exit 1; }
! chroot --userspec=10001:10001 "$root" /bin/sh -c 'touch /opt/openhqm/x /app/x' 2> /dev/null
stop
echo "$variant, $architecture: answered; ready after $first ms, and the fastest of 5 starts took $fastest ms;" \
    "the image has $whole MB, of which OpenHQM and its packages take $added"
