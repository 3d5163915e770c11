#!/bin/bash
PORT= TARGET_PORT=${TARGET_PORT:-8202}
. "$(dirname "$0")/../lib.sh"
start target "$TARGET_PORT" "$bin/python" ../target.py "$TARGET_PORT"

echo; echo "# Another program fills the queue:"
show "$bin/python" feed.py cfg.yaml
echo
"$bin/python" feed.py cfg.yaml

echo; echo "# It is forwarded. One event of a customer goes after the other, also where one takes two attempts:"
start openhqm - "$bin/twistd" -n openhqm --config cfg.yaml --role worker
for _ in $(seq 300); do
    if [ "$(grep -c '^200' "$work/target.log")" -ge 4 ]; then break; fi
    sleep 0.1
done
cat "$work/target.log"
