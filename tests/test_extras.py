"""The extras of setup.py: each product says which one it needs, and nothing is loaded that is not used."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import packages_distributions
from pathlib import Path
from runpy import run_path
from typing import Any
from unittest import mock

import attrs
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.backends import PRODUCTS, TABLE, Row, make_foreign_brokers
from openhqm.config.loading import load
from openhqm.config.products import Product
from openhqm.errors import ConfigurationError
from tests.servers import ROOT

PROVISIONS = {"all", "docs", "test"}
"""Extras that are made of others, or that nothing of OpenHQM imports."""
TECHNIQUES = {"encryption", "jwt", "routing", "schema", "tls", "websocket"}
"""Extras that belong to no product."""
LOADS = """
import json, sys
import openhqm
alone = sorted(sys.modules)
from twisted.internet import reactor
from openhqm.options import OpenHQMOptions
from openhqm.service import makeService
options = OpenHQMOptions()
options.parseOptions([])
makeService(options)
print(json.dumps([alone, sorted(sys.modules)]))
"""


def packaging() -> dict[str, Any]:
    """The arguments that setup.py gives to ``setup``."""
    found: dict[str, Any] = {}
    setuptools: Any = types.ModuleType("setuptools")
    setuptools.setup, setuptools.find_packages = found.update, lambda **_: []
    with mock.patch.dict(sys.modules, {"setuptools": setuptools}):
        run_path(str(ROOT / "setup.py"))
    return found


def name(requirement: str) -> str:
    """The distribution that a requirement is for, in lower case with hyphens."""
    return re.split(r"[\[<>=!~;\s]", requirement)[0].lower().replace("_", "-")


def optional_modules(packages: dict[str, Any]) -> set[str]:
    """The top-level modules of what only extras bring."""
    extras = packages["extras_require"]
    wanted = {name(each) for key, extra in extras.items() if key not in PROVISIONS for each in extra}
    wanted -= {name(each) for each in packages["install_requires"]}
    return {module for module, owners in packages_distributions().items() if {name(each) for each in owners} & wanted}


class Missing:
    """An importer of ``modules`` that has none of them."""

    def __init__(self, modules: set[str]) -> None:
        self.modules = modules

    def find_spec(self, path: str, *_: Any) -> None:
        if path.partition(".")[0] in self.modules:
            raise ModuleNotFoundError(f"No module named {path!r}", name=path)


class ExtrasTests(SynchronousTestCase):
    """setup.py, and the table of products"""

    def setUp(self) -> None:
        self.packages = packaging()
        self.extras: dict[str, list[str]] = self.packages["extras_require"]

    @contextmanager
    def nothing_optional(self) -> Iterator[None]:
        """No optional package is installed."""
        optional = optional_modules(self.packages)
        loaded = {module for module in sys.modules if module.partition(".")[0] in optional}
        # What has imported an optional package on its own first use has to try again.
        loaded |= {"openhqm.redis.protocols"} & sys.modules.keys()
        with mock.patch.dict(sys.modules), mock.patch.object(sys, "meta_path", [Missing(optional), *sys.meta_path]):
            for module in loaded:
                del sys.modules[module]
            yield

    def complaint(self, row: Row, make: Any, *arguments: Any) -> str | None:
        """What a product says where no optional package is installed; None: it is made."""
        with self.nothing_optional():
            try:
                make(*arguments)
            except ConfigurationError as error:
                (found,) = error.complaints
                self.assertNotIn("\n", found.reason, row.name)
                return found.reason
        return None

    def extra_of(self, reason: str | None, row: Product) -> str | None:
        """The extra that a complaint says to install."""
        if reason is None:
            return None
        found = re.search(r"pip install '\.\[([\w-]+)\]'", reason)
        assert found is not None, f"{row.name}: {reason}"
        self.assertIn(found[1], self.extras, row.name)
        return found[1]

    def test_all(self) -> None:
        """``all`` is every other extra, and the tests have all of it."""
        every = {each for key, extra in self.extras.items() if key not in PROVISIONS for each in extra}
        self.assertEqual(set(self.extras["all"]), every)
        self.assertLessEqual(every, set(self.extras["test"]))

    def test_products(self) -> None:
        """A product whose packages are missing names, in one line, an extra of setup.py; no extra is without one."""
        settings = load(None, {"OPENHQM_QUEUE__CONNECTION__SQLITE__PATH": self.mktemp()}, PRODUCTS)
        found = set()
        for row in TABLE:
            if row.name == "custom":  # it has what its author imports
                continue
            queue = attrs.evolve(settings.queue, type=row.name)
            asked = attrs.evolve(settings, queue=queue)
            extra = self.extra_of(self.complaint(row, row.make, asked, Clock(), None), row)
            if row.make_foreign is not None:
                assert row.settings is not None
                reason = self.complaint(row, row.make_foreign, row.settings(), Clock())
                self.assertEqual(self.extra_of(reason, row), extra, row.name)
            found.add(extra)
        self.assertEqual(found - {None}, self.extras.keys() - PROVISIONS - TECHNIQUES)

    def test_brokers(self) -> None:
        """Where the packages of ``brokers`` are missing, each is named by its own key, all at once."""
        text = "brokers: {plant: {type: mqtt}, shop: {type: kafka}}\nbridges:\n"
        text += "- {name: a, from: {broker: plant, topics: [t]}}\n- {name: b, from: {broker: shop, topic: t}}\n"
        settings = load("cfg", {}, PRODUCTS, text.encode())
        with self.nothing_optional():
            error = self.assertRaises(ConfigurationError, make_foreign_brokers, settings, Clock())
        self.assertEqual([each.key for each in error.complaints], ["brokers.plant", "brokers.shop"])
        found = [self.extra_of(each.reason, PRODUCTS[settings.brokers[each.key[8:]].type]) for each in error.complaints]
        self.assertEqual(found, ["mqtt", "kafka"])

    def test_documented(self) -> None:
        """Every extra has a row in the page about installing."""
        page = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
        for extra in self.extras:
            self.assertRegex(page, rf"(?m)^\| `{extra}` \|.*\[{extra}\]'` \|$")

    def test_loaded(self) -> None:
        """Neither ``import openhqm`` nor a start without a configuration loads a package of an extra, or the clients of
        a product.
        """
        directory = Path(self.mktemp())
        directory.mkdir()
        command = [sys.executable, "-c", LOADS]
        environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            command, cwd=directory, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        loaded = json.loads(done.stdout.splitlines()[-1])
        alone, started = ({module.partition(".")[0] for module in modules} for modules in loaded)
        optional = optional_modules(self.packages)
        self.assertLessEqual({"paho", "pika", "confluent_kafka"}, optional)
        self.assertEqual((alone & optional, started & optional), (set(), set()))
        self.assertEqual(alone & {"twisted", "klein", "apsw"}, set())
        products = ("event_hubs", "kafka", "mqtt", "pubsub", "rabbitmq", "redis", "sqs")
        clients = {f"openhqm.{product}.{each}" for product in products for each in ("broker", "foreign", "queue")}
        self.assertEqual(clients & set(loaded[1]), set())
