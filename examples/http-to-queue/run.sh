#!/bin/bash
PORT=${PORT:-8101} TARGET_PORT=
. "$(dirname "$0")/../lib.sh"
start openhqm "$PORT" "$bin/twistd" -n openhqm --config cfg.yaml

echo; echo "# Submit, and watch it until it has ended:"
ask -N "localhost:$PORT/api/v1/submit" -H 'Content-Type: application/json' -H 'Accept: text/event-stream' \
    -d '{"payload": {"operation": "resize", "image": "cat.png"}}'

echo; echo "# Submit, and wait for the answer. Its first attempt fails, which the caller does not see:"
ask "localhost:$PORT/api/v1/submit" -H 'Content-Type: application/json' -H 'Prefer: wait=30' \
    -d '{"payload": {"operation": "count", "text": "a durable queue"}}'
