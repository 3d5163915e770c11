"""The README and the pages of ``docs/``: what they show works as it stands there."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from openhqm.backends import PRODUCTS
from openhqm.config.loading import load
from openhqm.errors import ConfigurationError
from tests.brokers import Mosquitto, RedisServer, shared_rabbitmq
from tests.documentation import Block, Reader, blocks, pages, said
from tests.kafka.server import shared_kafka
from tests.pubsub.server import PubSubServer
from tests.servers import ROOT

INSTALLS = "it installs packages; the tests run in what was installed"
SYSTEM = "it changes the services of the machine"
LONG = "it runs for minutes, and is run by name"
FAILED = "the page shows requests that failed, and here none has"
PART = "it is a part of a file, or a form to fill in"
# The blocks that the tests do not run, by page and how they begin, and why.
NOT_RUN = {
    "README.md: $(command -v sudo) apt-get update": INSTALLS,
    "README.md: python3 -m venv .venv && .venv/bin/pip install -e": INSTALLS,
    "docs/beanstalkd.md: sudo apt-get": INSTALLS,
    "docs/bridges.md: curl": "it needs a lamp that answers",
    "docs/edge-gateway.md: sudo apt-get": INSTALLS,
    "docs/benchmarks.md: python -m benchmarks.edge": LONG,
    "docs/benchmarks.md: sudo apt-get install -y wrk": LONG,
    "docs/configuration.md: twistd -n openhqm [--config": PART,
    "docs/event-hubs.md: pip install": INSTALLS,
    "docs/event-hubs.md: queue:\n  type: azure": "it reads a connection string that the machine does not have",
    "docs/kafka.md: pip install": INSTALLS,
    "docs/mqtt.md: sudo apt-get": INSTALLS,
    "docs/mqtt.md: sudo systemctl": SYSTEM,
    "docs/DOCKER_IMAGES.md: docker": "it needs Docker",
    "docs/MULTI_ARCH_BUILD.md: docker": "it needs Docker",
    "docs/QUICK_REFERENCE.md: docker": "it needs Docker",
    "docs/debian.md: sudo": SYSTEM,
    "docs/deploying.md: docker compose": "it needs Docker",
    "docs/KUBERNETES_SIDECAR.md: kubectl": "it needs a cluster",
    "docs/KUBERNETES_SIDECAR.md: roles:": "it is values of the chart, which has tests of its own",
    "docs/pubsub.md: pip install": INSTALLS,
    "docs/pubsub.md: gcloud": "it needs the service",
    "docs/rabbitmq.md: pip install": INSTALLS,
    "docs/raspberry-pi.md: sudo apt-get": INSTALLS,
    "docs/raspberry-pi.md: sudo systemctl": SYSTEM,
    "docs/rabbitmq.md: rabbitmqctl": SYSTEM,
    "docs/redis.md: pip install": INSTALLS,
    "docs/running.md: python3 -m venv": INSTALLS,
    "docs/sqs.md: pip install": INSTALLS,
    "docs/running.md: . .venv/bin/activate": "the tests have the programs of the environment already",
    "docs/writing-a-backend.md: python -m": LONG,
}
# Those that are run, and print something else than the page shows.
NOT_COMPARED = {
    "docs/command-line.md: .venv/bin/openhqm dead": FAILED,
    "docs/http-api.md: curl 'localhost:8000/api/v1/dead-letters": FAILED,
    "docs/http-api.md: curl localhost:8000/api/v1/dead-letters": FAILED,
    "docs/operations.md: .venv/bin/openhqm dead": FAILED,
}


def not_run(block: Block) -> bool:
    """Whether the list above has the block."""
    return any(block.name.startswith(name) for name in NOT_RUN)


def _anchors(text: str) -> set[str]:
    """The names that GitHub gives to the headings of a page, and those that it gives itself."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    made: set[str] = set()
    for heading in plain:
        name = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        made.add(name if name not in made else f"{name}-1")
    return made | set(re.findall(r'<a id="([^"]+)"', text))


class BlocksTests(SynchronousTestCase):
    """Every code block"""

    def each(self, language: str) -> list[Block]:
        """The blocks in that language, of all pages."""
        found = [block for page in pages() for block in blocks(page) if block.language == language]
        self.assertTrue(found)
        return found

    def test_configurations(self) -> None:
        """Every YAML block is a configuration, or sections of one, that OpenHQM takes."""
        path = Path(self.mktemp())
        secret = Path(self.mktemp()).absolute()
        secret.write_text("jobs:handle")
        secret.chmod(0o600)
        for block in self.each("yaml"):
            if not_run(block):
                continue
            path.write_text(re.sub(r"/run/secrets/[\w-]+", str(secret), block.text))
            variables = dict.fromkeys(re.findall(r"\$\{(\w+)\}", block.text), "1")
            try:
                load(str(path), variables, PRODUCTS)
            except ConfigurationError as error:
                self.fail(f"{block.where}: {error}")

    def test_programs(self) -> None:
        """Every Python block can be read, and every JSON block is JSON."""
        for block in self.each("python"):
            ast.parse(block.text, block.where)
        for block in self.each("json"):
            json.loads(block.text)

    def test_languages(self) -> None:
        """Every block says what it is, and those that say nothing are printed by something, or drawn."""
        known = {"sh", "yaml", "python", "json", "js", "ini", "nginx", ""}
        self.assertEqual([b.where for page in pages() for b in blocks(page) if b.language not in known], [])

    def test_the_list(self) -> None:
        """What is not run is still there."""
        there = [block.name for page in pages() for block in blocks(page)]
        names = [*NOT_RUN, *NOT_COMPARED]
        self.assertEqual([name for name in names if not any(each.startswith(name) for each in there)], [])

    def test_said(self) -> None:
        """Ids, times, numbers and white space may differ from what a page shows, and nothing else."""
        shown = '{"id":"4f979731-6ccf-4116-ab56-c1caefb6b88d","at":"2026-11-24T03:49:15.811Z",\n "n":12,...}\n'
        printed = '{"id":"6e32e69e-0000-4116-ab56-c1caefb6b88d","at":"2027-01-01T00:00:00.000Z","n":7,"more":1}'
        self.assertTrue(said(shown, f"HTTP/1.1 200 OK\r\n\r\n{printed}"))
        self.assertFalse(said(shown, printed.replace('"n"', '"m"')))
        self.assertFalse(said("one\ntwo\n", "two\none\n"))

    def test_links(self) -> None:
        """Every link to a file of the repository, and to a heading in it, leads there."""
        broken = []
        for page in [*pages(), "CONTRIBUTING.md"]:
            text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.M | re.S)
            for target in re.findall(r"\]\(([^)\s]+)\)", text):
                path, _, anchor = target.partition("#")
                file = (ROOT / page).parent / path if path else ROOT / page
                if re.match(r"\w+:", target):
                    continue
                if not file.exists() or (anchor and anchor not in _anchors(file.read_text(encoding="utf-8"))):
                    broken.append(f"{page}: {target}")
        self.assertEqual(broken, [])

    def test_pictures(self) -> None:
        """Every picture is shown by a page, says in words what it shows, and loads nothing from elsewhere."""
        text = "".join((ROOT / page).read_text(encoding="utf-8") for page in pages())
        for path in ROOT.glob("docs/pictures/*"):
            self.assertIn(f"pictures/{path.name})", text)
            picture = ElementTree.parse(path).getroot()
            found = [picture.findtext(f"{{http://www.w3.org/2000/svg}}{name}") for name in ("title", "desc")]
            self.assertTrue(all(found), path)
            self.assertNotRegex(path.read_text(encoding="utf-8"), r"href|url\((?!#)|<script")

    def test_messages(self) -> None:
        """Every message that the page of troubleshooting explains is one of the code, up to what ``...`` stands for."""
        constants = ""
        for path in sorted(ROOT.glob("openhqm/**/*.py")):
            found = [
                (node.lineno, node.col_offset, node.value)
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            ]
            constants += "".join(value for *_, value in sorted(found)) + "\n"
        page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
        messages = re.findall(r"`([^`]*\.\.\.[^`]*|worker\.handler: [^`]*)`", page.partition("First ask")[2])
        self.assertGreater(len(messages), 15)
        for message in messages:
            parts = [part.strip(" :.,;?()'[]") for part in message.removeprefix("worker.handler: ").split("...")]
            for part in (part.removeprefix("server.host") for part in parts):
                self.assertTrue(part in constants, message)


class CommandsTests(SynchronousTestCase):
    """The commands of a page, run in a directory that has what the page has said before"""

    def follow(self, page: str) -> None:
        """Do what the page says, from its top to its end. What it needs beside OpenHQM is there."""
        content = "".join(block.text for block in blocks(page) if not not_run(block))
        ports: dict[str, str] = {}
        if "localhost:6379" in content or "redis-cli" in content:
            redis = RedisServer().start()
            self.addCleanup(redis.close)
            ports[r"(?<=localhost:)6379"] = str(redis.port)
            ports[r"\bredis-cli\b"] = f"redis-cli -p {redis.port}"
        if "localhost:5672" in content:
            ports[r"(?<=localhost:)5672"] = str(shared_rabbitmq().port)
        if "localhost:9092" in content:
            ports[r"(?<=localhost:)9092"] = str(shared_kafka().port)
        if "localhost:8085" in content:
            pubsub = PubSubServer().start()
            self.addCleanup(pubsub.close)
            ports[r"(?<=localhost:)8085"] = str(pubsub.port)
        if "mqtt_host" in content:
            mosquitto = Mosquitto().start()
            self.addCleanup(mosquitto.close)
            ports["mqtt_host: localhost"] = f"connection: {{mqtt: {{host: localhost, port: {mosquitto.port}}}}}"
        if "plant: {type: mqtt" in content:
            mosquitto = Mosquitto().start()
            self.addCleanup(mosquitto.close)
            ports["type: mqtt, host: localhost"] = f"type: mqtt, host: localhost, port: {mosquitto.port}"
            ports[r"\bmosquitto_pub\b"] = f"mosquitto_pub -p {mosquitto.port}"
        environment = dict.fromkeys(re.findall(r"\$\{(\w+)\}", content), "abc")
        reader = Reader(Path(self.mktemp()).absolute(), ports, environment)
        self.addCleanup(reader.close)
        for block in blocks(page):
            if not not_run(block):
                reader.follow(block)
                if any(block.name.startswith(name) for name in NOT_COMPARED):
                    reader.printed = ""


def _follows(page: str) -> Callable[[CommandsTests], None]:
    def test(self: CommandsTests) -> None:
        self.follow(page)

    test.__doc__ = f"What ``{page}`` says can be done."
    return test


for _page in pages():
    if any(block.language == "sh" for block in blocks(_page)):
        _name = "test_" + re.sub(r"\W+", "_", _page.removesuffix(".md").removeprefix("docs/")).lower()
        setattr(CommandsTests, _name, _follows(_page))
