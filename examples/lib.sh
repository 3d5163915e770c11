# The common part of the examples: start processes, send requests, and clean up. Sourced by each run.sh.
set -euo pipefail
export PORT=${PORT:-8000} TARGET_PORT=${TARGET_PORT:-8080}
export OPENHQM_SERVER__PORT=$PORT
here=$(cd "$(dirname "$0")" && pwd)
bin=${BIN:-$here/../../.venv/bin}
work=$(mktemp -d)
export OPENHQM_QUEUE__CONNECTION__SQLITE__PATH=$work/data PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH}
trap 'kill $(jobs -p) 2> /dev/null || true; wait 2> /dev/null || true; rm -rf "$work"' EXIT

# start NAME PORT COMMAND...: run COMMAND in the background, and return once PORT is open (-: at once).
start() {
    local name=$1 port=$2
    shift 2
    echo "\$ $*" | sed "s#$bin/##"
    "$@" > "$work/$name.log" 2>&1 &
    [ "$port" = - ] && return
    for _ in $(seq 300); do
        if (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null; then return; fi
        sleep 0.1
    done
    cat "$work/$name.log"
    return 1
}

# ask ARGUMENTS...: print and run a curl command.
ask() {
    echo "\$ curl $*"
    curl -sS --max-time 60 "$@"
    echo
}
