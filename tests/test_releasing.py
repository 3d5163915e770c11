"""The workflows of ``.github``, and the scripts that a release runs: a workflow only says who may do what, and when."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from twisted.trial.unittest import SynchronousTestCase

from openhqm import __version__
from tests.servers import ROOT
from tests.test_chart import find
from tests.test_deploying import VARIANTS

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
PROGRAMS = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
MAY_WRITE = {
    "docs.yaml: publish": {"pages", "id-token"},
    "release.yaml: index": {"id-token"},
    "release.yaml: images": {"packages", "id-token", "attestations"},
    "release.yaml: chart": {"packages"},
}


def run(*command: str | Path, **variables: str) -> tuple[int, str]:
    """The exit code, and what it prints on both outputs."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=ROOT, env={**ENVIRONMENT, **variables}, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def jobs() -> dict[str, Any]:
    """Every job, by its file and its name."""
    return {
        f"{path.name}: {name}": job
        for path in WORKFLOWS
        for name, job in YAML(typ="safe").load(path.read_text())["jobs"].items()
    }


class WorkflowTests(SynchronousTestCase):
    def test_actionlint(self) -> None:
        """actionlint finds nothing: names, expressions and shell are sound."""
        program = find("TEST_ACTIONLINT", "/var/tmp/openhqm-actionlint/actionlint", "actionlint")
        self.assertEqual(run(program, *WORKFLOWS), (0, ""))

    def test_zizmor(self) -> None:
        """zizmor finds nothing: no expression reaches a shell, no right is too wide, no action is unpinned."""
        code, text = run(PROGRAMS / "zizmor", "--offline", *WORKFLOWS)
        self.assertEqual(code, 0, text)
        self.assertIn("No findings", text)

    def test_hadolint(self) -> None:
        """hadolint finds nothing in the Dockerfile."""
        self.assertEqual(run(PROGRAMS / "hadolint", "Dockerfile"), (0, ""))

    def test_rights(self) -> None:
        """Only what publishes may write, each what it needs, after a person has approved, and no secret is kept."""
        for path in WORKFLOWS:
            text = path.read_text()
            self.assertNotIn("secrets.", text)
            self.assertIn(YAML(typ="safe").load(text)["permissions"], ({}, {"contents": "read"}))
            for used in re.findall(r"uses: (\S+)", text):
                self.assertRegex(used, r"@[0-9a-f]{40}$")
        for name, job in jobs().items():
            written = {right for right, kind in job.get("permissions", {}).items() if kind == "write"}
            self.assertEqual(written, MAY_WRITE.get(name, set()), name)
            self.assertEqual("environment" in job, bool(written), name)

    def test_scripts(self) -> None:
        """Every script that a step runs is there and can be run, and the images are those that there are."""
        for name, job in jobs().items():
            for step in job["steps"]:
                for script in re.findall(r"(?:scripts|\.ci)/[\w.-]+", step.get("run", "")):
                    self.assertTrue(os.access(ROOT / script, os.X_OK), f"{name}: {script}")
            variants = job.get("strategy", {}).get("matrix", {}).get("variant")
            self.assertEqual(set(variants or VARIANTS), set(VARIANTS), name)


class ScriptTests(SynchronousTestCase):
    def test_version(self) -> None:
        """A tag that is not what package, chart and image say is refused, with each file that says another."""
        code, text = run("bash", "scripts/check-version.sh", "v9.9.9")
        self.assertEqual(code, 1)
        for path in ("openhqm/__init__.py", "deploy/helm/openhqm/Chart.yaml", "Dockerfile", "CHANGELOG.md"):
            self.assertIn(f"{path} does not say version 9.9.9", text)
        _, text = run("bash", "scripts/check-version.sh", f"v{__version__}")
        self.assertEqual(set(re.findall(r"(\S+) does not say", text)) - {"CHANGELOG.md"}, set())

    def test_audit(self) -> None:
        """An audit without advisories is no success in CI, and one that has found a vulnerability is none anywhere."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        (directory / "bandit").write_text("#!/bin/sh\n")
        sound: dict[str, Any] = {"name": "six", "version": "1", "vulns": []}
        for report, in_ci, elsewhere, said in (
            ([sound], 0, 0, "1 packages checked, 0 vulnerabilities"),
            ([{**sound, "vulns": [{"id": "CVE-1"}]}], 1, 1, "six 1: CVE-1"),
            ([sound, {"name": "jq", "skip_reason": "not found"}], 1, 0, "not checked: no data: jq"),
            (None, 1, 0, "not checked: no data"),
        ):
            text = "" if report is None else json.dumps({"dependencies": report})
            (directory / "pip-audit").write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit 1\n")
            for program in directory.iterdir():
                program.chmod(0o755)
            for ci, expected in (("true", in_ci), ("", elsewhere)):
                path = f"{directory}:{ENVIRONMENT['PATH']}"
                code, printed = run("bash", "scripts/audit.sh", CI=ci, PATH=path)
                self.assertEqual(code, expected, printed)
                self.assertIn(said, printed)

    def test_chart(self) -> None:
        """The chart that is packed refuses wrong keys of OpenHQM's configuration, and takes right ones."""
        helm = find("TEST_HELM", "/var/tmp/openhqm-helm/helm", "helm")
        directory = Path(self.mktemp()).absolute()
        code, text = run("bash", "scripts/package-chart.sh", directory, HELM=str(helm), PYTHONPATH=str(ROOT))
        self.assertEqual(code, 0, text)
        chart = directory / f"openhqm-{__version__}.tgz"
        for config, complaint in (
            ({"worker": {"handler": "echo", "count": 7}}, ""),
            ({"worker": {"count": "many"}}, "/config/worker/count"),
            ({"worker": {"cuont": 7}}, "cuont"),
            ({"queues": {}}, "queues"),
        ):
            code, text = run(helm, "template", "openhqm", chart, "--set-json", f"config={json.dumps(config)}")
            self.assertEqual(code != 0, bool(complaint), text)
            self.assertIn(complaint, text)
