#!/bin/bash
PORT=${PORT:-8105} TARGET_PORT=${TARGET_PORT:-8205} MQTT_PORT=${MQTT_PORT:-8305}
export MQTT_PORT
. "$(dirname "$0")/../lib.sh"
for each in mosquitto mosquitto_pub mosquitto_sub; do
    command -v $each > /dev/null || [ -x /usr/sbin/$each ] || {
        echo "$each is not installed: apt-get install mosquitto mosquitto-clients" >&2
        exit 1
    }
done
PATH=$PATH:/usr/sbin
cat > "$work/mosquitto.conf" << END
listener $MQTT_PORT 127.0.0.1
allow_anonymous true
END

# publish TOPIC MESSAGE...: as a sensor does
publish() {
    local topic=$1 message
    shift
    for message in "$@"; do
        show mosquitto_pub -p "$MQTT_PORT" -q 1 -t "$topic" -m "$message"
        echo
        mosquitto_pub -p "$MQTT_PORT" -q 1 -t "$topic" -m "$message"
    done
}

# lamp ID: a device. It answers to the response topic of each command, with its correlation data (MQTT 5).
lamp() {
    mosquitto_sub -V 5 -p "$MQTT_PORT" -q 1 -t "lamps/$1/set" -F '%R %D %p' | while read -r topic correlation command; do
        mosquitto_pub -V 5 -p "$MQTT_PORT" -q 1 -t "$topic" -D publish correlation-data "$correlation" \
            -m "{\"lamp\": $1, \"done\": $command}"
    done
}

# until_seen COUNT: wait until the service has got so many readings, and show them
until_seen() {
    for _ in $(seq 300); do
        if [ "$(grep -c '^200' "$work/target.log")" -ge "$1" ]; then break; fi
        sleep 0.1
    done
    grep '^200' "$work/target.log" | tail -n "+$((${2:-0} + 1))"
}

start mosquitto "$MQTT_PORT" mosquitto -c "$work/mosquitto.conf"
set -m # a process group of its own, which can be stopped as a whole
lamp 7 > /dev/null 2>&1 &
lamp=$!
set +m
trap 'kill -- "-$lamp" 2> /dev/null || true; clean' EXIT
start target "$TARGET_PORT" "$bin/python" "$here/../target.py" "$TARGET_PORT" never
target=$!
start openhqm "$PORT" "$bin/twistd" -n openhqm --config "$here/cfg.yaml"
for _ in $(seq 100); do
    if grep -q 'connected to .*telemetry' "$work/openhqm.log"; then break; fi
    sleep 0.1
done

echo; echo "# Two sensors publish. Each reading is a request to the service:"
publish sensors/1/temperature 20.5 20.7
publish sensors/2/temperature 18.25
until_seen 3

echo; echo "# The line is down. Readings are accepted and stay on the disk of the gateway:"
show kill "$target"
echo
kill "$target"
wait "$target" 2> /dev/null || true
publish sensors/1/temperature 21 21.5 22
sleep 1

echo; echo "# The line is back. What has waited arrives, that of each sensor in its order:"
mv "$work/target.log" "$work/before.log"
start target "$TARGET_PORT" "$bin/python" "$here/../target.py" "$TARGET_PORT" never
until_seen 3

echo; echo "# A command to a lamp, and its answer:"
ask "localhost:$PORT/api/v1/submit" -H 'Content-Type: application/json' -H 'Prefer: wait=10' \
    -d '{"payload": {"id": 7, "on": true}, "metadata": {"endpoint": "lamp"}}'
