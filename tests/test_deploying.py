"""What is there to deploy with: the manifests, the image's parts, and the scripts that build it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import SkipTest

import kubernetes_validate
from ruamel.yaml import YAML
from twisted.trial.unittest import SynchronousTestCase

from openhqm import __version__
from openhqm.backends import PRODUCTS
from openhqm.config.loading import load
from tests.servers import ROOT, Server, free_port
from tests.test_chart import find
from tests.test_extras import name, packaging

KUBERNETES = ROOT / "deploy" / "kubernetes"
IMAGE = ROOT / "deploy" / "image"
CUSTOM = ("keda.sh/", "kustomize.config.k8s.io/", "monitoring.coreos.com/")
VARIANTS = {
    "all": [
        "boto3",
        "confluent-kafka",
        "google-auth",
        "hiredis",
        "jq",
        "jsonschema-rs",
        "paho-mqtt",
        "pika",
        "pyjwt",
        "pyopenssl",
        "txredisapi",
    ],
    "redis": ["hiredis", "jq", "pyjwt", "pyopenssl", "txredisapi"],
    "kafka": ["confluent-kafka", "jq", "pyjwt", "pyopenssl"],
    "azure": ["confluent-kafka", "jq", "pyjwt", "pyopenssl"],
    "sqs": ["boto3", "jq", "pyjwt", "pyopenssl"],
    "gcp": ["google-auth", "jq", "pyjwt", "pyopenssl"],
    "mqtt": ["jq", "paho-mqtt", "pyjwt", "pyopenssl"],
    "rabbitmq": ["jq", "pika", "pyjwt", "pyopenssl"],
    "minimal": [],
}
OPTIONAL = {each for variant in VARIANTS.values() for each in variant}


def documents(folder: str = "") -> Iterator[tuple[str, Any]]:
    """Every document of the manifests, with the file that it is in."""
    for path in sorted((KUBERNETES / folder).rglob("*.yaml")):
        for document in YAML(typ="safe").load_all(path.read_text()):
            yield str(path.relative_to(KUBERNETES)), document


def pods() -> Iterator[tuple[str, Any]]:
    for where, document in documents():
        if document["kind"] == "Deployment":
            yield where, document["spec"]["template"]["spec"]


class ManifestTests(SynchronousTestCase):
    def test_valid(self) -> None:
        """Kubernetes' own schemas take every document, strictly: no key is unknown, no value of another type."""
        kinds = set()
        for where, document in documents():
            if document["apiVersion"].startswith(CUSTOM):
                continue
            kinds.add(document["kind"])
            try:
                kubernetes_validate.validate(document, "1.37", strict=True)
            except kubernetes_validate.ValidationError as error:
                self.fail(f"{where}: {error}")
        self.assertGreaterEqual(kinds, {"Deployment", "Service", "ConfigMap", "NetworkPolicy", "PodDisruptionBudget"})

    def test_named(self) -> None:
        """Every file is named in its kustomization, and every selector finds the pods that it is for."""
        for folder in ("base", "sidecar", "keda", "keda-prometheus", "monitoring"):
            named = set(YAML(typ="safe").load((KUBERNETES / folder / "kustomization.yaml").read_text())["resources"])
            files = {path.name for path in (KUBERNETES / folder).glob("*.yaml")} - {"kustomization.yaml"}
            self.assertEqual({each for each in named if not each.startswith("..")}, files)
        labels = [
            document["spec"]["template"]["metadata"]["labels"]
            for _, document in documents()
            if document["kind"] == "Deployment"
        ]
        for where, document in documents():
            spec = document.get("spec") or {}
            selector = spec.get("podSelector") or spec.get("selector")
            if selector and document["kind"] != "ScaledObject":
                wanted = selector.get("matchLabels", selector)
                self.assertTrue(any(wanted.items() <= each.items() for each in labels), (where, wanted))

    def test_restricted(self) -> None:
        """Every pod keeps the pod security standard "restricted", and its sidecar has a read-only root."""
        for where, pod in pods():
            self.assertIs(pod["securityContext"]["runAsNonRoot"], True, where)
            self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"}, where)
            for container in (*pod.get("initContainers", ()), *pod["containers"]):
                context = container["securityContext"]
                self.assertIs(context["allowPrivilegeEscalation"], False, where)
                self.assertEqual(context["capabilities"], {"drop": ["ALL"]}, where)
                if container["name"] == "openhqm":
                    self.assertIs(context["readOnlyRootFilesystem"], True, where)
                    self.assertIn("memory", container["resources"]["limits"], where)

    def test_time_to_drain(self) -> None:
        """A pod has the time to drain, and those of the door leave the Service before."""
        for where, pod in pods():
            containers = {each["name"]: each for each in (*pod.get("initContainers", ()), *pod["containers"])}
            before = (
                containers["openhqm"].get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["", 0])
            )
            self.assertGreaterEqual(pod["terminationGracePeriodSeconds"], 30 + int(before[1]) + 5, where)
            self.assertIs(pod["enableServiceLinks"], False, where)

    def test_configuration(self) -> None:
        """OpenHQM takes the configuration of the ConfigMap, and the variables of the sidecar."""
        (text,) = (each["data"]["cfg.yaml"] for _, each in documents("base") if each["kind"] == "ConfigMap")
        path = Path(self.mktemp())
        path.write_text(text)
        variables = {"REDIS_URL": "redis://redis:6379", "ADMIN_KEY": "0" * 64}
        settings = load(str(path), variables, PRODUCTS)
        self.assertEqual((settings.queue.type, settings.admin.port, settings.auth.type), ("redis", 8001, "api_key"))
        (sidecar,) = (pod["initContainers"][0] for where, pod in pods() if where.startswith("sidecar"))
        image = dict(re.findall(r"(OPENHQM_\w+)=(\S+)", (ROOT / "Dockerfile").read_text()))
        image.pop("OPENHQM_QUEUE__CONNECTION__SQLITE")
        own = {each["name"]: each.get("value", "redis://redis:6379") for each in sidecar["env"]}
        settings = load(None, {**image, **own}, PRODUCTS)
        self.assertTrue(settings.proxy.sidecar.enabled)
        self.assertEqual((settings.admin.port, settings.server.host), (None, "0.0.0.0"))

    def test_scaled(self) -> None:
        """The autoscaler asks for a queue that there is, and for members that the answer has."""
        (scaled,) = (each for _, each in documents("keda") if each["kind"] == "ScaledObject")
        for trigger in scaled["spec"]["triggers"]:
            self.assertTrue(trigger["metadata"]["url"].endswith(":8001/admin/api/v1/scaler/openhqm-requests"))
            self.assertIn(trigger["metadata"]["valueLocation"], ("backlog", "in_flight"))


class ImageTests(SynchronousTestCase):
    def test_packages(self) -> None:
        """Each variant installs what its products need and no other optional package, each with its hashes."""
        self.assertEqual({path.stem for path in IMAGE.glob("*.txt")}, set(VARIANTS))
        for variant, needed in VARIANTS.items():
            text = (IMAGE / f"{variant}.txt").read_text()
            installed = set(re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE))
            self.assertEqual(installed & OPTIONAL - {"pyopenssl"}, set(needed) - {"pyopenssl"}, variant)
            for entry in re.split(r"\n(?=\S)", text.strip()):
                self.assertIn("--hash=sha256:", entry, variant)

    def test_all(self) -> None:
        """The image of all has every package of the extra ``all``: scripts/lock.sh was run after the last one came."""
        wanted = {name(each) for each in packaging()["extras_require"]["all"]}
        locked = set(re.findall(r"^([a-z0-9-]+)==", (IMAGE / "all.txt").read_text(), re.MULTILINE))
        self.assertEqual(wanted - locked, set())

    def test_constraints(self) -> None:
        """An installation that is pinned has the versions of the image with every package."""
        locked = re.findall(r"^([a-z0-9-]+==[^\\\n]*?) ?\\?$", (IMAGE / "all.txt").read_text(), re.MULTILINE)
        self.assertEqual((ROOT / "constraints.txt").read_text().splitlines(), locked)

    def test_bill_of_materials(self) -> None:
        """It names OpenHQM, and every package of the variant with its version and its hashes, each time alike."""
        texts = []
        for _ in range(2):
            path = Path(self.mktemp()).absolute()
            environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
            script = str(ROOT / "scripts" / "sbom.sh")
            done = subprocess.run(["bash", script, "redis", str(path)], env=environment, capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            texts.append(path.read_text())
        self.assertEqual(texts[0], texts[1])
        document = json.loads(texts[0])
        root = document["metadata"]["component"]
        self.assertEqual((document["bomFormat"], root["name"], root["version"]), ("CycloneDX", "openhqm", __version__))
        locked = re.findall(r"^([a-z0-9-]+)==(\S+)", (IMAGE / "redis.txt").read_text(), re.MULTILINE)
        self.assertEqual([(each["name"], each["version"]) for each in document["components"]], locked)
        for component in document["components"]:
            self.assertTrue(component["purl"].startswith("pkg:pypi/"))
            hashes = [each for reference in component["externalReferences"] for each in reference.get("hashes", ())]
            self.assertIn("SHA-256", {each["alg"] for each in hashes}, component["name"])
        refused = subprocess.run(["bash", script, "oracle"], env=environment, capture_output=True, text=True)
        self.assertEqual((refused.returncode, refused.stderr), (2, "there is no variant oracle\n"))

    def test_no_secrets(self) -> None:
        """The image says nothing of who may call, and runs as a number, which Kubernetes can tell from root."""
        text = (ROOT / "Dockerfile").read_text()
        self.assertNotIn("AUTH__TYPE=", text)
        self.assertIn("\nUSER 10001:10001\n", text)

    def test_a_missing_package(self) -> None:
        """What the image lacks is one line, with the image that has it: nothing can be installed into an image."""
        self.assertIn(" IMAGE_VARIANT=${VARIANT} ", (ROOT / "Dockerfile").read_text())
        directory = Path(self.mktemp())
        for variables, missing in (
            ({"OPENHQM_QUEUE__TYPE": "redis"}, "txredisapi"),
            ({"OPENHQM_QUEUE__TYPE": "kafka"}, "confluent_kafka"),
            ({"OPENHQM_QUEUE__TYPE": "mqtt"}, "paho"),
        ):
            server = Server(directory, f"import sys; sys.modules[{missing!r}] = None", **variables)
            environment = {**server.variables(), **variables, "IMAGE_VARIANT": "minimal"}
            done = subprocess.run(server.command("--check"), env=environment, capture_output=True, text=True)
            self.assertEqual(done.returncode, 1, done.stdout)
            (line,) = done.stderr.splitlines()
            self.assertIn("the image latest-all has it, and this one, latest-minimal, has not", line)

    def test_health_check(self) -> None:
        """It follows the port, the role and the prefix, and fails where nothing is ready."""
        directory = Path(self.mktemp())
        directory.mkdir()
        admin = free_port()
        check = str(IMAGE / "healthcheck")

        def run(**variables: str) -> int:
            return subprocess.run(
                ["bash", check], env={"PATH": "/usr/bin:/bin", **variables}, capture_output=True
            ).returncode

        self.assertNotEqual(run(OPENHQM_ADMIN__PORT=str(admin)), 0)
        for variables in (
            {"OPENHQM_ADMIN__PORT": str(admin)},
            {"OPENHQM_ADMIN__PORT": "null"},
            {"OPENHQM_ADMIN__PORT": "null", "OPENHQM_SERVER__PREFIX": "/queue"},
            {"OPENHQM_ADMIN__PORT": "null", "OPENHQM_SERVER__PREFIX": "/"},
            {"OPENHQM_ADMIN__PORT": str(admin), "OPENHQM_SERVER__PREFIX": "/queue"},
            {
                "OPENHQM_ADMIN__PORT": "null",
                "OPENHQM_WORKER__HANDLER": "",
                "OPENHQM_PROXY__SIDECAR__ENABLED": "true",
                "OPENHQM_PROXY__SIDECAR__UPSTREAM": "http://127.0.0.1:9",
            },
        ):
            server = Server(directory, **variables)
            server.start()
            self.addCleanup(lambda server=server: server.process.poll() is None and server.kill())
            asked = {name: value for name, value in variables.items() if name.startswith(("OPENHQM_A", "OPENHQM_S"))}
            asked["OPENHQM_SERVER__PORT"] = str(server.port)
            self.assertEqual(run(**asked), 0, variables)
            server.stop()
            self.assertNotEqual(run(**asked), 0, variables)


class ComposeTests(SynchronousTestCase):
    """``compose.yaml``"""

    services = YAML(typ="safe").load((ROOT / "compose.yaml").read_text())["services"]

    def variables(self, queue: str) -> dict[str, str]:
        """Those of the service, with that queue."""
        said = {"${QUEUE:-sqlite}": queue, "${HANDLER:-jobs:handle}": "jobs:handle"}
        return {name: said.get(value, value) for name, value in self.services["openhqm"]["environment"].items()}

    def test_configuration(self) -> None:
        """OpenHQM takes the variables of its service with every queue that there is a profile for."""
        image = dict(re.findall(r"(OPENHQM_\w+)='?([^'\s]+)", (ROOT / "Dockerfile").read_text()))
        image["OPENHQM_QUEUE__CONNECTION__SQLITE"] = '{"path": "/data"}'
        profiles = {each for service in self.services.values() for each in service.get("profiles", ())}
        self.assertEqual(profiles, {"redis", "rabbitmq", "kafka", "mqtt"})
        for queue in ("sqlite", *profiles):
            settings = load(None, {**image, **self.variables(queue)}, PRODUCTS)
            self.assertEqual((settings.queue.type, settings.worker.handler), (queue, "jobs:handle"))

    def test_specification(self) -> None:
        """The library of the Compose specification, which has its schema, takes the file with every profile, and would
        not take a wrong one."""
        check = find("TEST_COMPOSE", "/var/tmp/openhqm-compose/check", "compose check")

        def checked(path: Path) -> tuple[int, str]:
            done = subprocess.run([str(check), str(path)], cwd=path.parent, capture_output=True, text=True)
            return done.returncode, done.stdout + done.stderr

        self.assertEqual(checked(ROOT / "compose.yaml")[0], 0, checked(ROOT / "compose.yaml")[1])
        for wrong in ({"ports": {"a": 1}}, {"prots": ["80:80"]}, {"healthcheck": {"interval": []}}):
            path = Path(self.mktemp()).absolute()
            path.mkdir()
            (path / "compose.yaml").write_text(json.dumps({"services": {"openhqm": {"image": "openhqm", **wrong}}}))
            self.assertEqual(checked(path / "compose.yaml")[0], 1, wrong)

    def test_files(self) -> None:
        """Every file of the repository that a service mounts is there."""
        text = (ROOT / "compose.yaml").read_text()
        for path in re.findall(r"\./([\w./-]+):", text):
            self.assertTrue((ROOT / path).exists(), path)

    def test_changed_handler(self) -> None:
        """A change of the mounted handler takes effect in the process that runs. One that cannot be imported changes
        nothing, and the log names it."""
        directory = Path(self.mktemp()).absolute()
        shutil.copytree(ROOT / "deploy" / "compose" / "handlers", directory)
        server = Server(directory, **self.variables("sqlite"))
        server.start(*(word.replace("/app", str(directory)) for word in self.services["openhqm"]["command"]))
        self.addCleanup(lambda: server.process and server.process.poll() is None and server.kill())

        def keys() -> list[str]:
            return list(server.response(server.submit(1))["result"])

        self.assertEqual(keys(), ["received", "attempt"])
        jobs = directory / "jobs.py"
        jobs.write_text(jobs.read_text().replace('"received"', '"seen"'))
        server.until(lambda: keys() == ["seen", "attempt"], "the change has no effect")
        jobs.write_text("def handle(work)")
        server.until(lambda: "worker.handler: cannot import jobs: SyntaxError" in server.log(), "it does not say so")
        self.assertEqual(keys(), ["seen", "attempt"])
        self.assertEqual(server.stop(), 0)


class AlertTests(SynchronousTestCase):
    """``deploy/prometheus/alerts.yaml``"""

    def test_entries(self) -> None:
        """Each alert is made of metrics that there are, with labels that they have, and has its entry on the page."""
        (group,) = YAML(typ="safe").load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text())["groups"]
        pages = ROOT / "docs"
        headings = re.findall(r"^## (\w+)$", (pages / "alerts.md").read_text(), re.MULTILINE)
        self.assertEqual([rule["alert"] for rule in group["rules"]], headings)
        rows = re.findall(r"^\| (`openhqm_.*)$", (pages / "operations.md").read_text(), re.MULTILINE)
        metrics = {name: row for row in rows for name in re.findall(r"`(openhqm_\w+)`", row.partition(" | ")[0])}
        for rule in group["rules"]:
            self.assertEqual(rule["annotations"]["runbook"], f"docs/alerts.md#{rule['alert'].lower()}")
            self.assertIn(rule["labels"]["severity"], ("warning", "critical"))
            for metric in re.findall(r"openhqm_\w+", rule["expr"]):
                self.assertIn(metric, metrics)
                values = re.findall(r'(\w+)="(\w+)"', rule["expr"])
                shown = re.findall(r"labels\.(\w+)", rule["annotations"]["summary"])
                for word in (*(word for pair in values for word in pair), *(set(shown) - {"instance"})):
                    self.assertIn(word, metrics[metric], rule["alert"])


class SystemdTests(SynchronousTestCase):
    """The unit of systemd"""

    def test_exposure(self) -> None:
        """systemd counts it among what is well confined: at most 2.5 of 10."""
        if shutil.which("systemd-analyze") is None:
            raise SkipTest("systemd-analyze is missing")
        unit = str(ROOT / "deploy" / "systemd" / "openhqm.service")
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--threshold=25", unit], capture_output=True, text=True
        )
        self.assertEqual(done.returncode, 0, done.stdout[-200:] + done.stderr)

    def test_told(self) -> None:
        """It waits until the process is ready, and gives it more time to stop than that takes to drain."""
        text = (ROOT / "deploy" / "systemd" / "openhqm.service").read_text()
        self.assertIn("\nType=notify\n", text)
        # A small Debian has no /bin/kill.
        self.assertEqual(set(re.findall(r"^Exec\w+=(\S+)", text, re.MULTILINE)), {"/opt/openhqm/bin/twistd", "/bin/sh"})
        stop = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
        assert stop is not None
        self.assertGreater(int(stop[1]), load(None, {}, PRODUCTS).server.drain_seconds)

    def test_layout(self) -> None:
        """The script puts each file where systemd looks for it, and systemd makes of them the user and the directories;
        OpenHQM takes the configuration, and a second run leaves that of the operator alone."""
        root = Path(self.mktemp()).absolute()
        script = str(ROOT / "scripts" / "install-units.sh")
        for _ in range(2):
            environment = {**os.environ, "PREFIX": "/usr/lib/openhqm"}
            done = subprocess.run(["bash", script, f"{root}/"], env=environment, capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            configuration = root / "etc" / "openhqm" / "cfg.yaml"
            self.assertEqual(load(str(configuration), {}, PRODUCTS).worker.handler, "echo")
            with configuration.open("a") as file:
                file.write("# mine\n")
        self.assertEqual(configuration.read_text().count("# mine"), 2)
        unit = (root / "usr" / "lib" / "systemd" / "system" / "openhqm.service").read_text()
        self.assertIn("\nExecStart=/usr/lib/openhqm/bin/twistd ", unit)
        self.assertEqual(os.readlink(root / "usr" / "bin" / "openhqm"), "/usr/lib/openhqm/bin/openhqm")
        for program in ("systemd-sysusers", "systemd-tmpfiles"):
            if shutil.which(program) is None:
                raise SkipTest(f"{program} is missing")
        made = subprocess.run(["systemd-sysusers", f"--root={root}"], capture_output=True, text=True)
        self.assertEqual(made.returncode, 0, made.stderr)
        (entry,) = re.findall(r"^openhqm:.*$", (root / "etc" / "passwd").read_text(), re.MULTILINE)
        user = entry.split(":")
        self.assertEqual((user[5], user[6].rpartition("/")[2]), ("/var/lib/openhqm", "nologin"))
        command = ["systemd-tmpfiles", "--create", f"--root={root}", str(root / "usr/lib/tmpfiles.d/openhqm.conf")]
        made = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(made.returncode, 0, made.stderr)
        for path, mode in (("etc/openhqm", 0o750), ("var/lib/openhqm", 0o700), ("run/openhqm", 0o750)):
            self.assertEqual((root / path).stat().st_mode & 0o777, mode, path)
        self.assertEqual(configuration.stat().st_mode & 0o777, 0o640)

    def test_socket(self) -> None:
        """The socket listens where the service would, and the sections of both are those that systemd knows."""
        directory = ROOT / "deploy" / "systemd"
        socket = (directory / "openhqm.socket").read_text()
        server = load(None, {}, PRODUCTS).server
        self.assertIn(f"\nListenStream={server.host}:{server.port}\n", socket)
        for path in (directory / "openhqm.service", directory / "openhqm.socket"):
            sections = re.findall(r"^\[(\w+)\]$", path.read_text(), re.MULTILINE)
            self.assertEqual(sections, ["Unit", path.suffix[1:].title(), "Install"])


class BuildTests(SynchronousTestCase):
    """``scripts/build-multiarch.sh``, with a ``docker`` that writes down what it was asked for"""

    def build(self, *arguments: str) -> tuple[int, list[list[str]], str]:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        docker = directory / "docker"
        docker.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {directory}/called-$(ls {directory} | wc -l)\n')
        docker.chmod(0o755)
        done = subprocess.run(
            ["bash", str(ROOT / "scripts" / "build-multiarch.sh"), *arguments],
            env={"PATH": f"{directory}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )
        called = sorted(directory.glob("called-*"), key=lambda path: int(path.name.split("-")[1]))
        return done.returncode, [path.read_text().splitlines() for path in called], done.stderr

    def test_variants(self) -> None:
        """One variant, or all of them; the image of all packages has the plain name, too."""
        code, ((*words,),), _ = self.build("--backend", "redis", "--platforms", "x86_64,aarch64", "--push")
        self.assertEqual(code, 0)
        self.assertEqual(words[words.index("--platform") + 1], "linux/amd64,linux/arm64")
        self.assertIn("VARIANT=redis", words)
        self.assertEqual([words[at + 1] for at, word in enumerate(words) if word == "--tag"], ["openhqm:latest-redis"])
        arguments = ("--tag", "registry.example/o", "--version", "1.2.3", "--metadata", "file")
        code, ((*words,),), _ = self.build("--platforms", "amd64", *arguments)
        tags = [words[at + 1] for at, word in enumerate(words) if word == "--tag"]
        wanted = [f"registry.example/o:{each}" for each in ("latest-all", "latest", "1.2.3-all", "1.2.3")]
        self.assertEqual((code, tags, words[words.index("--metadata-file") + 1]), (0, wanted, "file"))
        code, calls, _ = self.build("--build-all", "--platforms", "linux/arm64")
        built = {word.removeprefix("VARIANT=") for words in calls for word in words if word.startswith("VARIANT=")}
        self.assertEqual((code, built), (0, set(VARIANTS)))
        self.assertIn("openhqm:latest", calls[0])

    def test_refused(self) -> None:
        """What cannot be built is refused before anything is."""
        for arguments, text in (
            (("--backend", "oracle"), "there is no variant oracle"),
            (("--platforms", "amd64,arm64"), "--push"),
            (("--what",), "unknown argument"),
        ):
            code, calls, errors = self.build(*arguments)
            self.assertEqual((code, calls), (2, []), arguments)
            self.assertIn(text, errors)
