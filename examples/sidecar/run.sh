#!/bin/bash
PORT=${PORT:-8104} TARGET_PORT=${TARGET_PORT:-8204}
. "$(dirname "$0")/../lib.sh"
start target "$TARGET_PORT" "$bin/python" ../target.py "$TARGET_PORT"
start openhqm "$PORT" "$bin/twistd" -n openhqm --config cfg.yaml

echo; echo "# Passed through:"
ask "localhost:$PORT/shop?item=1"

echo; echo "# A report goes through the queue, as the configuration says. It is accepted at once:"
ask -i "localhost:$PORT/reports/2026" -d '{"year": 2026}' | tee "$work/accepted"
location=$(tr -d '\r' < "$work/accepted" | sed -n 's/^Location: //p')

echo; echo "# ... and its answer is there later, although the application was busy:"
ask "localhost:$PORT$location/body?wait=20"

echo; echo "# Any request goes through the queue if its client prefers so:"
ask -i "localhost:$PORT/shop" -d '{}' -H 'Prefer: respond-async'
