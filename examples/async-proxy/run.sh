#!/bin/bash
PORT=${PORT:-8103} TARGET_PORT=${TARGET_PORT:-8203}
. "$(dirname "$0")/../lib.sh"
start target "$TARGET_PORT" "$bin/python" ../target.py "$TARGET_PORT"
start openhqm "$PORT" "$bin/twistd" -n openhqm --config cfg.yaml

echo; echo "# Three orders. The service fails at every third request; the third order takes a second attempt:"
for number in 1 2 3; do
    ask "localhost:$PORT/api/v1/submit" -H 'Content-Type: application/json' -H 'Prefer: wait=30' \
        -d "{\"payload\": {\"order\": $number}, \"metadata\": {\"path\": \"/$number\"}}"
done

echo; echo "# A mail takes the route of mails: another endpoint, another method, another content:"
ask "localhost:$PORT/api/v1/submit" -H 'Content-Type: application/json' -H 'Prefer: wait=30' \
    -d '{"payload": {"kind": "mail", "address": "ada@example.org"}}'
