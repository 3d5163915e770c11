#!/bin/bash
. "$(dirname "$0")/../lib.sh"
start target "$TARGET_PORT" "$bin/python" "$here/../target.py" "$TARGET_PORT"

echo; echo "# Another program fills the queue:"
"$bin/python" "$here/feed.py" "$here/cfg.yaml"

echo; echo "# It is forwarded. One event of a customer goes after the other, also where one takes two attempts:"
start openhqm - "$bin/twistd" -n openhqm --config "$here/cfg.yaml"
for _ in $(seq 300); do
    if [ "$(grep -c '^200' "$work/target.log")" -ge 4 ]; then break; fi
    sleep 0.1
done
cat "$work/target.log"
