"""The site: the pages of the repository as they are, by Sphinx, MyST and furo. ``scripts/site.sh`` builds it.

The source directory is the repository itself, so that every relative link means here what it means where the
files are read.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
INDEX = "docs/README.md"

project = "OpenHQM"
author = "the authors of OpenHQM"
copyright = f"{author}, MIT"
release = version = re.search(r'__version__ = "([^"]+)"', (ROOT / "openhqm" / "__init__.py").read_text())[1]

extensions = ["myst_parser"]
root_doc = "README"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**.md", "examples/README.md"]
exclude_patterns = [".*", "build", "dist", "_trial_temp*", "**/node_modules", "**/__pycache__"]
myst_heading_anchors = 4
myst_links_external_new_tab = False
highlight_language = "none"

html_theme = "furo"
html_title = f"OpenHQM {release}"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = True
html_show_sourcelink = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0969da", "color-brand-content": "#0969da"},
    "dark_css_variables": {"color-brand-primary": "#4493f8", "color-brand-content": "#4493f8"},
}
if repository := os.environ.get("GITHUB_REPOSITORY"):
    html_theme_options |= {
        "source_repository": f"https://github.com/{repository}/",
        "source_branch": "main",
        "source_directory": "",
    }


def sections() -> dict[str, list[tuple[str, str, str]]]:
    """Title, name and purpose of each page, by the task for which ``docs/README.md`` lists it."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    task = ""
    for row in re.findall(r"^\|(.*)\|(.*)\|(.*)\|$", (ROOT / INDEX).read_text(encoding="utf-8"), re.M):
        first, second, third = (cell.strip() for cell in row)
        link = re.fullmatch(r"\[(.*)\]\(([^)#]+)\.md\)", second)
        if link is None:
            continue
        task = first or task
        name = os.path.normpath(os.path.join("docs", link[2]))
        found.setdefault(task, []).append((link[1].replace("`", ""), name, third))
    return found


def contents() -> str:
    """The table of contents for the side bar, out of the table that people read."""
    groups = {
        "OpenHQM": ["docs/README"],
        **{task: [name for _, name, _ in pages] for task, pages in sections().items()},
        "Project": ["docs/decisions/README", "examples/README", "CONTRIBUTING", "SECURITY", "CHANGELOG"],
    }
    text = ""
    for caption, names in groups.items():
        text += tree([f"/{name}" for name in names], f":caption: {caption}")
    return text


def tree(names: list[str], *options: str) -> str:
    return "\n".join(("\n```{toctree}", ":hidden:", *options, "", *names, "```\n"))


def read(app: Any, name: str, source: list[str]) -> None:
    """Anchors in the words of MyST, and the table of contents below the first page."""
    source[0] = re.sub(r'^<a id="([^"]+)"></a>$', r"(\1)=", source[0], flags=re.M)
    if name == root_doc:
        source[0] += contents()
    elif name == "docs/decisions/README":
        source[0] += tree(
            sorted(f"/docs/decisions/{path.stem}" for path in (ROOT / "docs" / "decisions").glob("0*.md"))
        )


def finish(app: Any, exception: Exception | None) -> None:
    """The first page under the name that a server looks for; and the pages for programs that read text."""
    if exception is not None:
        return
    out = Path(app.outdir)
    shutil.copy(out / f"{root_doc}.html", out / "index.html")
    summary = (ROOT / "README.md").read_text(encoding="utf-8").split("\n\n")[1].replace("\n", " ")
    short = [
        f"# OpenHQM\n\n> {summary}\n",
        f"- [Quick start](_sources/{root_doc}.md.txt): try it, and what is promised",
    ]
    names = [root_doc]
    for task, pages in sections().items():
        short.append(f"\n## {task}\n")
        for title, name, purpose in pages:
            short.append(f"- [{title}](_sources/{name}.md.txt): {purpose}")
            names.append(name)
    (out / "llms.txt").write_text("\n".join(short) + "\n", encoding="utf-8")
    texts = [(ROOT / f"{name}.md").read_text(encoding="utf-8") for name in names]
    (out / "llms-full.txt").write_text("\n\n".join(texts), encoding="utf-8")


def setup(app: Any) -> None:
    app.connect("source-read", read)
    app.connect("build-finished", finish)
