"""``scripts/site.sh``: the pages of ``docs/`` as a site, and as text for programs that read it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from twisted.trial.unittest import SynchronousTestCase

from tests.documentation import pages
from tests.servers import ROOT


@cache
def build() -> tuple[Path, str]:
    """The site in a directory below that of the tests, and what the build has printed."""
    site = Path("site").absolute()
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    script = str(ROOT / "scripts" / "site.sh")
    done = subprocess.run(["bash", script, str(site)], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(done.stdout + done.stderr)
    return site, done.stdout + done.stderr


class SiteTests(SynchronousTestCase):
    """Built once, as a reader finds it"""

    def setUp(self) -> None:
        self.site, self.printed = build()

    def text(self, name: str) -> str:
        return (self.site / name).read_text(encoding="utf-8")

    def test_pages(self) -> None:
        """Every page is there, and in the side bar or on the page that lists the decisions."""
        listed = set(re.findall(r'href="([^"#]+)\.html"', self.text("index.html") + self.text("docs/README.html")))
        for page in pages():
            name = page.removesuffix(".md")
            self.assertIn(f"{name}.html", [str(path.relative_to(self.site)) for path in self.site.rglob("*.html")])
            if not name.startswith("docs/decisions/0") and name != "README":
                self.assertIn(name, listed)

    def test_links(self) -> None:
        """Every link and every picture leads to a file of the site, and every anchor to a place on its page."""
        anchors = {
            path: set(re.findall(r' id="([^"]+)"', path.read_text(encoding="utf-8")))
            for path in self.site.rglob("*.html")
        }
        broken = []
        for path in anchors:
            for target in re.findall(r'(?:href|src)="([^"]+)"', path.read_text(encoding="utf-8")):
                target = unquote(target)
                place, _, anchor = target.partition("#")
                file = (path.parent / place.partition("?")[0]).resolve() if place else path
                if re.match(r"\w+:|//", target):
                    continue
                if not file.is_file() or (anchor and file in anchors and anchor not in anchors[file]):
                    broken.append(f"{path.relative_to(self.site)}: {target}")
        self.assertEqual(broken, [])

    def test_search(self) -> None:
        """The index of the search has every page, and finds words that one of them has."""
        found = re.search(r"Search\.setIndex\((.*)\)", self.text("searchindex.js"), re.S)
        assert found is not None
        index = json.loads(found[1])
        self.assertLessEqual({page.removesuffix(".md") for page in pages()}, set(index["docnames"]))
        self.assertIn("watchdogsec", index["terms"])

    def test_light_and_dark(self) -> None:
        """The reader chooses, and the pictures, which are all SVG, follow."""
        self.assertIn("theme-toggle", self.text("index.html"))
        self.assertIn("color-scheme: dark", self.text("_static/site.css"))
        self.assertEqual({path.suffix for path in (self.site / "_images").iterdir()}, {".svg"})

    def test_for_programs(self) -> None:
        """``llms.txt`` lists every page that people find, each with its text; ``llms-full.txt`` has all of them."""
        short, full = self.text("llms.txt"), self.text("llms-full.txt")
        self.assertRegex(short, r"^# OpenHQM\n\n> A durable queue")
        for page in pages():
            if page.startswith(("docs/decisions/", "examples/")) or page == "docs/README.md":
                continue
            text = (ROOT / page).read_text(encoding="utf-8")
            self.assertIn(f"(_sources/{page}.txt)", short)
            self.assertIn(text.partition("\n")[2].strip()[:200], self.text(f"_sources/{page}.txt"))
            self.assertIn(text, full)

    def test_warnings(self) -> None:
        """A link that leads nowhere fails the build: it is one of the warnings, which are all errors."""
        script = (ROOT / "scripts" / "site.sh").read_text()
        self.assertIn("--fail-on-warning", script)
        self.assertEqual(self.printed, f"the site is in {self.site}\n")
