#!/bin/bash
# Builds wheel and sdist into DIRECTORY, and checks both: names and metadata, what has to be inside, and that the wheel alone,
# with the versions of constraints.txt, answers a request as the README says.
#
#   scripts/check-dist.sh [DIRECTORY]
#
# DIRECTORY is dist. Needs the packages build, check-wheel-contents and twine (PyPI), git and curl.
set -euo pipefail
cd "$(dirname "$0")/.."
directory=$(realpath -m "${1:-dist}") work=$(mktemp -d) server=
trap '[ -z "$server" ] || kill "$server" 2> /dev/null || true; wait; rm -rf "$work"' EXIT
# Only what belongs to the repository is built, not what lies about.
git ls-files -z --cached --others --exclude-standard | xargs -0 tar cf - | (mkdir "$work/source" && tar xf - -C "$work/source")
rm -rf "$directory"
python3 -m build --outdir "$directory" "$work/source" > "$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
wheel=$(echo "$directory"/*.whl) sdist=$(echo "$directory"/*.tar.gz)
check-wheel-contents --config pyproject.toml "$wheel"
twine check --strict "$wheel" "$sdist"
tar tzf "$sdist" | cut -d/ -f2- | sort > "$work/sdist"
python3 -m zipfile --list "$wheel" | awk 'NR > 1 {print $1}' | sort > "$work/wheel"
(cd "$work/source" && find openhqm twisted -type f \( -name '*.py' -o -name '*.lua' -o -name py.typed \) | sort) > "$work/needed"
for listed in "$work/wheel" "$work/sdist"; do
    missing=$(comm -23 "$work/needed" "$listed")
    [ -z "$missing" ] || { echo "the $(basename "$listed") lacks: $missing"; exit 1; }
done
grep -q '^tests/test_service.py$' "$work/sdist" || { echo "the sdist lacks the tests"; exit 1; }

unset PYTHONPATH
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --constraint constraints.txt "$wheel"
cd "$work"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
OPENHQM_SERVER__PORT=$port OPENHQM_WORKER__HANDLER=echo "$work/venv/bin/openhqm" serve > "$work/log" 2>&1 &
server=$!
for _ in $(seq 300); do
    ! curl -fs "localhost:$port/health/ready" > /dev/null || break
    kill -0 "$server" || { cat "$work/log"; exit 1; }
    sleep 0.1
done
answer=$(curl -sS "localhost:$port/api/v1/submit" -H 'Content-Type: application/json' -H 'Prefer: wait=10' -d '{"payload": "done"}')
[[ $answer == *'"result":"done"'* ]] || { echo "it answered $answer"; cat "$work/log"; exit 1; }
echo "$(basename "$wheel") and $(basename "$sdist"): sound, and the wheel answered"
