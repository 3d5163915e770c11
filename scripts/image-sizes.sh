#!/bin/bash
# Prints for each variant how many MB OpenHQM and its packages take in the image for an architecture, uncompressed:
# it installs the wheels for that architecture, which need no program of it to be unpacked.
#
#   scripts/image-sizes.sh [amd64|arm64] [VARIANT ...]
#
# Needs Python 3.11 with venv, as the base of scripts/try-image.sh, whose sizes it comes to.
set -euo pipefail
cd "$(dirname "$0")/.."
architecture=${1:-arm64}
[ $# = 0 ] || shift
case $architecture in
    amd64) machine=x86_64 ;;
    arm64) machine=aarch64 ;;
    *)
        echo "$architecture is neither amd64 nor arm64" >&2
        exit 2
        ;;
esac
[ $# != 0 ] || set -- all redis kafka sqs azure gcp mqtt rabbitmq minimal
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
platforms=(--platform any)
# Oldest last: pip takes the first that a package has a wheel for.
for glibc in 2_36 2_35 2_34 2_31 2_28 2_27 2_26 2_24 2_17 2014; do
    platforms+=(--platform "manylinux${glibc/#2_/_2_}_$machine")
done
python3.11 -m venv "$work/pip"
pip=("$work/pip/bin/pip" --python "$work/openhqm/bin/python" install --quiet --disable-pip-version-check --no-cache-dir)
for variant; do
    python3.11 -m venv --without-pip "$work/openhqm"
    packages=$work/openhqm/lib/python3.11/site-packages
    "${pip[@]}" --target "$packages" --upgrade --only-binary=:all: --implementation cp --python-version 3.11 \
        --abi cp311 --abi abi3 --abi none "${platforms[@]}" --require-hashes -r "deploy/image/$variant.txt"
    find "$work/openhqm" -depth -type d \( -name test -o -name tests \) -exec rm -r {} +
    "${pip[@]}" --no-deps .
    echo "$variant, $architecture: $(du -sm "$work/openhqm" | cut -f1) MB"
    rm -rf "$work/openhqm"
done
