#!/bin/bash
# Writes what is in the image of a variant as CycloneDX: OpenHQM, and each package of its lock file with version and hashes.
#
#   scripts/sbom.sh VARIANT [FILE]
#
# FILE is openhqm-VARIANT.cdx.json. Needs the package cyclonedx-bom (PyPI).
set -euo pipefail
cd "$(dirname "$0")/.."
variant=${1:?which variant?} file=${2:-openhqm-$1.cdx.json}
lock=deploy/image/$variant.txt
[ -e "$lock" ] || { echo "there is no variant $variant" >&2; exit 2; }
project=$(mktemp --suffix=.toml)
trap 'rm -f "$project"' EXIT
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' openhqm/__init__.py)
printf '[project]\nname = "openhqm"\nversion = "%s"\nlicense = "MIT"\n' "$version" > "$project"
cyclonedx-py requirements "$lock" --pyproject "$project" --mc-type application --output-reproducible --output-format JSON \
    --spec-version 1.6 --validate --output-file "$file.part" 2> /dev/null
# The tool does not say what the image itself needs: everything in it.
python3 - "$file.part" "$file" << 'END'
import json, sys

document = json.load(open(sys.argv[1]))
root = document["metadata"]["component"]["bom-ref"]
document["dependencies"] = [each for each in document.get("dependencies", []) if each["ref"] != root]
needed = sorted(each["bom-ref"] for each in document["components"])
document["dependencies"].append({"ref": root, "dependsOn": needed})
for component in document["components"]:
    component.pop("description", None)
json.dump(document, open(sys.argv[2], "w"), indent=1, sort_keys=True)
END
rm "$file.part"
