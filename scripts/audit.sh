#!/bin/bash
# Looks for known vulnerabilities in every package of the images, and for patterns of them in the code.
#
#   scripts/audit.sh
#
# Needs the packages bandit and pip-audit (PyPI). Where no advisories can be reached it says "not checked: no data", which is a
# failure where CI is true, and a word of warning elsewhere: pip-audit alone would call it a success.
set -euo pipefail
cd "$(dirname "$0")/.."
# B608: every statement is put together of constants. B104: ruff finds it too (S104), and knows the one line that may.
bandit --quiet --recursive openhqm --severity-level medium --skip B104,B608
echo 'bandit: nothing found'
report=$(mktemp)
trap 'rm -f "$report"' EXIT
pip-audit --requirement deploy/image/all.txt --require-hashes --disable-pip --progress-spinner off --format json \
    > "$report" 2> "$report.errors" || true
python3 - "$report" "$report.errors" << 'END'
import json
import os
import sys

try:
    packages = json.load(open(sys.argv[1]))["dependencies"]
except ValueError:
    packages = []
unknown = [each["name"] for each in packages if "vulns" not in each]
if not packages or unknown:
    missing = ", ".join(unknown) or open(sys.argv[2]).read().strip()[-300:]
    print(f"pip-audit: not checked: no data: {missing}")
    sys.exit(os.environ.get("CI") == "true")
found = [(each["name"], each["version"], vulnerability["id"]) for each in packages for vulnerability in each["vulns"]]
for name, version, identity in found:
    print(f"{name} {version}: {identity}")
print(f"pip-audit: {len(packages)} packages checked, {len(found)} vulnerabilities")
sys.exit(bool(found))
END
