#!/bin/bash
PORT=${PORT:-8107} TARGET_PORT=${TARGET_PORT:-8207} KAFKA=${KAFKA:-localhost:9092}
export KAFKA
. "$(dirname "$0")/../lib.sh"
"$bin/python" -c 'import confluent_kafka' 2> /dev/null || {
    echo "confluent-kafka is not installed: pip install '.[kafka]'" >&2
    exit 1
}

# shop ARGUMENTS...: what another program does
shop() {
    show "$bin/python" shop.py "$KAFKA" "$@"
    echo
    "$bin/python" shop.py "$KAFKA" "$@"
}

echo "# An operator makes the topics:"
shop topics
start target "$TARGET_PORT" "$bin/python" "$here/../target.py" "$TARGET_PORT"
start openhqm "$PORT" "$bin/twistd" -n openhqm --config "$here/cfg.yaml"

echo; echo "# A shop publishes orders, and OpenHQM calls the service for each. Its third answer is a 503:"
shop order ada lamp table chair
shop order bob clock

echo; echo "# The answers are in the topic that the orders name, with their correlation:"
shop answers 4

echo; echo "# What the service was asked, the orders of each customer in their order:"
cat "$work/target.log"
