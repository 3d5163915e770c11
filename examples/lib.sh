# What the examples have in common: start, ask, and tidy up. Sourced by each run.sh.
set -euo pipefail
export PORT=${PORT:-8000} TARGET_PORT=${TARGET_PORT:-8080}
export OPENHQM_SERVER__PORT=$PORT
here=$(cd "$(dirname "$0")" && pwd)
bin=${BIN:-$here/../../.venv/bin}
work=$(mktemp -d)
export OPENHQM_QUEUE__CONNECTION__SQLITE__PATH=$work/data PYTHONPATH=$here
trap 'kill $(jobs -p) 2> /dev/null || true; wait 2> /dev/null || true; rm -rf "$work"' EXIT

# start NAME PORT COMMAND...: run it in the background until the end, and go on once PORT is open (-: at once).
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

# ask ARGUMENTS...: curl, and what it was asked.
ask() {
    echo "\$ curl $*"
    curl -sS --max-time 60 "$@"
    echo
}
