#!/bin/bash
# Runs the tests and says which lines and branches they do not reach; fails below the share in pyproject.toml.
#
#   scripts/coverage.sh [names of modules, cases or tests]
#
# Needs the extra for tests. The processes that tests start are counted, too; one that is killed is not, because it writes
# nothing any more.
set -euo pipefail
cd "$(dirname "$0")/.."
coverage erase
coverage run -m tests "$@"
coverage combine --quiet
coverage report
