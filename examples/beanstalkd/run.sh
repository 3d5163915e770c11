#!/bin/bash
PORT=${PORT:-8106} TARGET_PORT=${TARGET_PORT:-8206} BEANSTALKD_PORT=${BEANSTALKD_PORT:-8306}
export BEANSTALKD_PORT
. "$(dirname "$0")/../lib.sh"
command -v beanstalkd > /dev/null || {
    echo "beanstalkd is not installed: apt-get install beanstalkd" >&2
    exit 1
}
mkdir "$work/jobs"

# say COMMAND...: print commands and send them to beanstalkd, and print its answers
say() {
    show printf '%s\r\n' "$@" quit
    echo " > /dev/tcp/127.0.0.1/$BEANSTALKD_PORT"
    exec 4<> "/dev/tcp/127.0.0.1/$BEANSTALKD_PORT"
    printf '%s\r\n' "$@" quit >&4
    tr -d '\r' <&4
    exec 4<&-
}

start beanstalkd "$BEANSTALKD_PORT" beanstalkd -l 127.0.0.1 -p "$BEANSTALKD_PORT" -b "$work/jobs" -f 0
start target "$TARGET_PORT" "$bin/python" "$here/../target.py" "$TARGET_PORT" never
start openhqm "$PORT" "$bin/twistd" -n openhqm --config "$here/cfg.yaml"

echo; echo "# A caller over HTTP. The request waits in beanstalkd until a worker has it:"
ask "localhost:$PORT/api/v1/submit" -H 'Content-Type: application/json' -H 'Prefer: wait=10' \
    -d '{"payload": {"customer": "ada"}}'

echo; echo "# Another program puts a job into the tube orders:"
say 'use orders' 'put 1024 0 60 19' '{"customer": "bob"}'

echo; echo "# The service has it, and the reply is a job in the tube bills:"
for _ in $(seq 100); do
    if grep -q bob "$work/target.log"; then break; fi
    sleep 0.1
done
grep '^200' "$work/target.log"
say 'watch bills' 'reserve-with-timeout 10'

echo; echo "# The tubes. A channel of the queue holds a job that is delayed for ever:"
say list-tubes
