#!/bin/bash
# Runs the tests and says which lines and branches they do not reach; fails below the share in pyproject.toml.
#
#   scripts/coverage.sh [names of modules, cases or tests]
#
# Needs the extra for tests. The processes that tests start are counted, too; one that is killed is not, because it writes
# nothing any more.
set -euo pipefail
# From 3.14 on the interpreter itself tells which lines and branches run. Before, a trace function doubles what the tests take.
if python -c 'import sys; sys.exit(sys.version_info < (3, 14))'; then
    export COVERAGE_CORE=sysmon
fi
cd "$(dirname "$0")/.."
coverage erase
coverage run -m tests "$@"
coverage combine --quiet
coverage report
