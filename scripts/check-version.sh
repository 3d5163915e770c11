#!/bin/bash
# Succeeds where TAG, like v1.2.3, is the version that the package, the chart, the image and the changelog say.
#
#   scripts/check-version.sh TAG
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1:?which tag?}
version=${version#v}
failed=0
check() { # FILE, what it has to contain as a line, as a regular expression
    grep -qE "$2" "$1" || { echo "$1 does not say version $version" >&2; failed=1; }
}
plain=${version//./\\.}
check openhqm/__init__.py "^__version__ = \"$plain\"$"
check deploy/helm/openhqm/Chart.yaml "^version: $plain$"
check deploy/helm/openhqm/Chart.yaml "^appVersion: $plain$"
check Dockerfile "image\.version=\"$plain-"
check CHANGELOG.md "^## \[$plain\]"
exit "$failed"
