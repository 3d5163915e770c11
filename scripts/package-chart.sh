#!/bin/bash
# Packs the chart for Helm into DIRECTORY, with the schema of OpenHQM's configuration in that of the values: a wrong key below
# config is then refused by Helm, too.
#
#   scripts/package-chart.sh [DIRECTORY]
#
# DIRECTORY is dist. Needs helm, or its path in HELM, and openhqm.
set -euo pipefail
cd "$(dirname "$0")/.."
directory=${1:-dist} work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$directory"
cp -R deploy/helm/openhqm "$work/openhqm"
openhqm config schema > "$work/config.json"
python3 - "$work/openhqm/values.schema.json" "$work/config.json" << 'END'
import json
import sys

values, config = (json.load(open(path)) for path in sys.argv[1:])
config.pop("$schema")
values["properties"]["config"] = config
json.dump(values, open(sys.argv[1], "w"))
END
"${HELM:-helm}" package "$work/openhqm" --destination "$directory"
