"""The pages that are made of the code, and those that explain the same by hand."""

from __future__ import annotations

import re
from runpy import run_path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.ingress.answers import STATUS
from tests.servers import ROOT

REFERENCE: dict[str, Any] = run_path(str(ROOT / "docs" / "site" / "reference.py"))
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}


def plain(value: object) -> object:
    """A default as text, in which 60 and 60.0 are one number."""
    try:
        return float(str(value))
    except ValueError:
        return str(value).strip('"').lower()


class ReferenceTests(SynchronousTestCase):
    """``docs/site/reference.py``"""

    def test_up_to_date(self) -> None:
        """The pages are what the code makes of them: python docs/site/reference.py was run after the last change."""
        for name, make in REFERENCE["PAGES"].items():
            self.assertEqual(PAGES[name], make(), f"run docs/site/reference.py: docs/{name}")

    def test_explained(self) -> None:
        """Each key is named by the page that its section is explained on, or by that of the configuration."""
        missing = []
        for key in REFERENCE["values"]():
            page = REFERENCE["page_of"](REFERENCE["prefix_of"](key)).partition("#")[0]
            name = key.replace("[]", "").rpartition(".")[2]
            texts = "".join(PAGES[each] for each in PAGES if each not in REFERENCE["PAGES"])
            if name != "NAME" and not re.search(rf"\b{name}\b", PAGES[page] + PAGES["configuration.md"]):
                missing.append(f"{key}: not on docs/{page}{', nor anywhere' * (name not in texts)}")
        self.assertEqual(missing, [])

    def test_defaults(self) -> None:
        """The tables of the pages that people wrote give each key the default that it has."""
        values, seen = REFERENCE["values"](), 0
        wrong = []
        for page, text in PAGES.items():
            if page in REFERENCE["PAGES"]:
                continue
            tables = "".join(re.findall(r"^\| key \| default \|.*\n(?:\|.*\n)*", text, re.MULTILINE))
            for key, shown in re.findall(r"^\| `([\w.]+)` \| (none|`[^`|]*`) \|", tables, re.MULTILINE):
                node = values.get(key)
                if node is None or node.get("default") in (None, ""):
                    continue  # no key; or what it is without a value is decided where it is used
                seen += 1
                if plain(node.get("default")) != plain(None if shown == "none" else shown.strip("`")):
                    wrong.append(f"docs/{page}: {key} is {node.get('default')!r}, not {shown}")
        self.assertEqual(wrong, [])
        self.assertGreater(seen, 60)

    def test_problems(self) -> None:
        """Every error with a status, and every status that a refusal names, has its heading and what to do."""
        page = PAGES["problems.md"]
        for status in {status for _, status in STATUS} | set(REFERENCE["details"]()):
            self.assertRegex(page, rf"(?m)^## {status} \w[\w ]+\n\n[A-Z].*\.$")
        self.assertIn("`the content must be application/json in UTF-8`", page)
