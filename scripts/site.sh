#!/bin/bash
# Builds the site of the documentation: search, light and dark, llms.txt. A warning, such as a link that leads nowhere, is a failure.
#
#   scripts/site.sh [DIRECTORY]
#
# DIRECTORY is build/site. Needs the extra docs: pip install -e '.[docs]'.
set -euo pipefail
cd "$(dirname "$0")/.."
sphinx-build --fail-on-warning --keep-going --quiet -c docs/site . "${1:-build/site}"
echo "the site is in ${1:-build/site}"
