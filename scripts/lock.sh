#!/bin/bash
# Writes deploy/image/VARIANT.txt for each variant of the image: every package that it installs, with its version and
# the hashes of its files; and constraints.txt. Needs uv (PyPI). The versions that are there stay; --upgrade takes the newest.
set -euo pipefail
cd "$(dirname "$0")/.."
usual=tls,jwt,routing,websocket
declare -A extras=(
    [all]=all
    [redis]=$usual,redis
    [kafka]=$usual,kafka
    [sqs]=$usual,sqs
    [azure]=$usual,event-hubs
    [gcp]=$usual,pubsub
    [mqtt]=$usual,mqtt
    [rabbitmq]=$usual,rabbitmq
    [minimal]=
)
for variant in "${!extras[@]}"; do
    flags=()
    for extra in ${extras[$variant]//,/ }; do flags+=(--extra "$extra"); done
    uv pip compile "$@" --quiet --no-header --no-annotate --generate-hashes --universal --python-version 3.12 \
        --no-emit-index-url "${flags[@]}" --output-file "deploy/image/$variant.txt" setup.py
done
# What a plain installation may pin to: the versions of the image with every package.
grep -E '^[a-z0-9-]+==' deploy/image/all.txt | sed 's/ \\$//' > constraints.txt
