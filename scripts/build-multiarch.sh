#!/bin/bash
# Builds the images, for one architecture or several.
#
#   scripts/build-multiarch.sh [--backend VARIANT | --build-all] [--platforms LIST] [--tag NAME] [--version X.Y.Z]
#                              [--metadata FILE] [--push]
#
# VARIANT is all (the default), redis, kafka, sqs, azure, gcp, mqtt, rabbitmq or minimal. LIST is like
# linux/amd64,linux/arm64, and also takes x86_64 and aarch64, as uname -m prints them; left out, it is this machine's.
# NAME is openhqm: the image of a variant is NAME:latest-VARIANT, and that of all NAME:latest, too; with a version also
# NAME:X.Y.Z-VARIANT, and NAME:X.Y.Z. FILE is written by buildx, with the digest. Several platforms need --push, because
# Docker keeps no manifest list of its own. Needs docker buildx.
set -euo pipefail
cd "$(dirname "$0")/.."
variants=(all redis kafka sqs azure gcp mqtt rabbitmq minimal)
chosen=(all) platforms=$(uname -m) name=openhqm version= metadata=() output=--load
while [ $# -gt 0 ]; do
    case $1 in
        --backend) chosen=("${2:?--backend needs a variant}"); shift 2 ;;
        --build-all) chosen=("${variants[@]}"); shift ;;
        --platforms) platforms=${2:?--platforms needs a list}; shift 2 ;;
        --tag) name=${2:?--tag needs a name}; shift 2 ;;
        --version) version=${2:?--version needs a number}; shift 2 ;;
        --metadata) metadata=(--metadata-file "${2:?--metadata needs a file}"); shift 2 ;;
        --push) output=--push; shift ;;
        *) echo "unknown argument $1" >&2; sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
platforms=$(sed -E 's#(^|,)(linux/)?(x86_64|amd64)#\1linux/amd64#g; s#(^|,)(linux/)?(aarch64|arm64)#\1linux/arm64#g' <<< "$platforms")
if [[ $platforms == *,* && $output == --load ]]; then
    echo "several platforms ($platforms) make a manifest list, which needs --push" >&2
    exit 2
fi
for variant in "${chosen[@]}"; do
    if [ ! -e "deploy/image/$variant.txt" ]; then
        echo "there is no variant $variant: ${variants[*]}" >&2
        exit 2
    fi
    tags=()
    for each in latest $version; do
        tags+=(--tag "$name:$each-$variant")
        [ "$variant" != all ] || tags+=(--tag "$name:$each")
    done
    docker buildx build --platform "$platforms" --build-arg "VARIANT=$variant" "${tags[@]}" "${metadata[@]}" "$output" .
done
