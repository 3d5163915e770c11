# The common part of the examples, sourced by each run.sh: go to the folder of the example, start processes, send
# requests, and clean up. What is printed after "$" can be pasted into a shell.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here"
# PORT and TARGET_PORT, which each run.sh sets, are read by its configuration, too.
export PORT TARGET_PORT
bin=${BIN:-../../.venv/bin}
work=$(mktemp -d)
export OPENHQM_QUEUE__CONNECTION__SQLITE__PATH=$work/data
# clean: stop what was started, and remove its files.
clean() {
    kill $(jobs -p) 2> /dev/null || true
    wait 2> /dev/null || true
    rm -rf "$work"
}
trap clean EXIT

# show COMMAND...: print the command as it can be pasted.
show() {
    local word
    printf '$'
    for word in "$@"; do
        case $word in
        *[!A-Za-z0-9_./:=@%+,-]*) printf ' %s' "${word@Q}" ;;
        *) printf ' %s' "$word" ;;
        esac
    done
}

# listening PORT: whether a process listens there.
listening() {
    (exec 3<> "/dev/tcp/127.0.0.1/$1") 2> /dev/null
}

# start NAME PORT COMMAND...: run COMMAND in the background, and return once it listens on PORT (-: at once).
start() {
    local name=$1 port=$2
    shift 2
    if [ "$port" != - ] && listening "$port"; then
        echo "port $port is in use: stop what listens there, or set PORT and TARGET_PORT to free ports" >&2
        exit 1
    fi
    echo "$(show "$@") &"
    "$@" > "$work/$name.log" 2>&1 &
    [ "$port" = - ] && return
    for _ in $(seq 300); do
        if listening "$port"; then return; fi
        kill -0 $! 2> /dev/null || break
        sleep 0.1
    done
    cat "$work/$name.log" >&2
    exit 1
}

# ask ARGUMENTS...: print and run a curl command.
ask() {
    show curl -sS "$@"
    echo
    curl -sS --max-time 60 "$@"
    echo
}

[ -x "$bin/twistd" ] || {
    echo "$here/$bin has no OpenHQM: run the first line of the README, or set BIN" >&2
    exit 1
}
show cd "$here"
echo
