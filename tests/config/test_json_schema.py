"""The JSON Schema of the configuration, by the reference implementation in Python."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
from ruamel.yaml import YAML
from twisted.trial.unittest import SynchronousTestCase

from openhqm.backends import PRODUCTS
from openhqm.command.main import main
from openhqm.config.json_schema import json_schema
from openhqm.config.records import settings_record
from tests.documentation import blocks, pages

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json_schema(settings_record(PRODUCTS))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def faults(text: str) -> list[str]:
    document = YAML(typ="safe").load(text) or {}
    return [f"{error.json_path}: {error.message[:200]}" for error in VALIDATOR.iter_errors(document)]


class JsonSchemaTests(SynchronousTestCase):
    def test_itself(self) -> None:
        """It is a schema."""
        jsonschema.Draft202012Validator.check_schema(SCHEMA)

    def test_referenced(self) -> None:
        """Every sample file begins with the place of the schema, and keeps to it with the defaults of its variables."""
        samples = [*ROOT.glob("examples/*/cfg.yaml"), ROOT / "deploy" / "systemd" / "cfg.yaml"]
        self.assertGreater(len(samples), 7)
        for path in samples:
            text = path.read_text()
            self.assertRegex(text, r"\A# yaml-language-server: \$schema=(\.\./)?openhqm\.schema\.json\n", str(path))
            self.assertEqual(faults(re.sub(r"\$\{\w+:-(.*?)\}", r"\1", text)), [], str(path))

    def test_documented(self) -> None:
        """It takes every configuration that the documentation shows, and each of those has keys that it knows."""
        found = 0
        for page in pages():
            for block in blocks(page):
                document: Any = YAML(typ="safe").load(block.text) if block.language == "yaml" else None
                if isinstance(document, dict) and document.keys() <= SCHEMA["properties"].keys():
                    found += 1
                    self.assertEqual(faults(block.text), [], f"{block.where}\n{block.text}")
        self.assertGreater(found, 30)

    def test_wrong(self) -> None:
        """It refuses keys that there are not, other types, and values that a key does not allow."""
        for text in (
            "sever: {port: 81}",
            "server: {prot: 81}",
            "server: {port: many}",
            "server: {port: 70000}",
            "server: {port: true}",
            "server: [81]",
            "queue: {type: oracle}",
            "worker: {executor: fibre}",
            "worker: {handlers: {a: 1}}",
            "proxy: {endpoints: {a: {url: 1}}}",
            "proxy: {endpoints: {a: {url: 'http://a.test', colour: red}}}",
            "brokers: {plant: {host: a}}",
            "brokers: {plant: {type: mqtt, hosts: a}}",
            "callbacks: {schedule: [soon]}",
        ):
            self.assertNotEqual(faults(text), [], text)

    def test_variables(self) -> None:
        """A variable may stand in place of any single value, and a file in place of a secret."""
        self.assertEqual(faults("server: {port: '${PORT}'}\nqueue: {redis_url: '${URL:-redis://a}'}"), [])
        self.assertEqual(faults("admin: {port: 8001, key_file: /run/secrets/key}"), [])

    def test_no_secrets(self) -> None:
        """It has no default of a secret."""
        self.assertNotIn("guest", json.dumps(SCHEMA))

    def test_printed(self) -> None:
        """The command prints it."""
        out = io.StringIO()
        self.assertEqual(main(["config", "schema"], {}, out, io.StringIO()), 0)
        self.assertEqual(json.loads(out.getvalue()), json.loads(json.dumps(SCHEMA)))
