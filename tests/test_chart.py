"""``deploy/helm/openhqm``: what the chart makes of values, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import SkipTest

import kubernetes_validate
from ruamel.yaml import YAML
from twisted.trial.unittest import SynchronousTestCase

from openhqm.backends import PRODUCTS
from openhqm.config.loading import load
from tests.servers import ROOT, Server, free_port

CHART = ROOT / "deploy" / "helm" / "openhqm"
EXAMPLES = sorted((CHART / "ci").glob("*-values.yaml"))
KUBERNETES = ROOT / "deploy" / "kubernetes"
CUSTOM = ("keda.sh/", "monitoring.coreos.com/")
# Reads documents as JSON, and says of each, by the types that its project publishes, what is wrong with it.
MODELS = """
const documents = JSON.parse(require('fs').readFileSync(0))
const packages = {'keda.sh/v1alpha1': '@kubernetes-models/keda/keda.sh/v1alpha1',
    'monitoring.coreos.com/v1': '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1'}
async function judge(document) {
    const found = await import(`${process.cwd()}/node_modules/${packages[document.apiVersion]}/${document.kind}.js`)
    const Model = found[document.kind] ?? found.default[document.kind]
    try { new Model(document).validate() } catch (error) { console.log(`${document.kind}: ${error.message}`) }
}
documents.reduce((before, document) => before.then(() => judge(document)), Promise.resolve())
"""
REDIS = {"queue": {"type": "redis", "redis_url": "${REDIS_URL}"}, "worker": {"handler": "echo"}}
RESULTS = {"cache": {"type": "redis", "redis_url": "${REDIS_URL}"}, "worker": {"handler": "echo"}}
BACKENDS: dict[str, tuple[dict[str, Any], str]] = {
    "redis": (REDIS, "redis"),
    "rabbitmq": ({**RESULTS, "queue": {"type": "rabbitmq", "rabbitmq_url": "${RABBITMQ_URL}"}}, "all"),
    "kafka": ({**RESULTS, "queue": {"type": "kafka", "kafka_bootstrap_servers": ["kafka:9092"]}}, "all"),
    "sqs": ({**RESULTS, "queue": {"type": "sqs", "sqs_region": "eu-central-1"}}, "all"),
    "mqtt": ({**RESULTS, "queue": {"type": "mqtt", "mqtt_host": "mosquitto"}}, "all"),
    "gcp_pubsub": (
        {**RESULTS, "queue": {"type": "gcp_pubsub", "connection": {"gcp_pubsub": {"project_id": "shop-123"}}}},
        "all",
    ),
    "azure_eventhubs": (
        {
            **RESULTS,
            "queue": {
                "type": "azure_eventhubs",
                "priorities": ["normal"],
                "connection": {"azure_eventhubs": {"connection_string": "${EVENT_HUBS}"}},
            },
        },
        "all",
    ),
}
URLS = {
    "REDIS_URL": "redis://redis:6379",
    "RABBITMQ_URL": "amqp://rabbitmq:5672",
    "EVENT_HUBS": "Endpoint=sb://shop.servicebus.windows.net/;SharedAccessKeyName=all;SharedAccessKey=c2VjcmV0",
    "ADMIN_KEY": "0" * 64,
}


def find(name: str, default: str, what: str) -> Path:
    """What ``.ci/run`` has installed for these tests, at the path in the variable ``name``."""
    path = Path(os.environ.get(name, default))
    if path.exists():
        return path
    reason = f"there is no {what} at {path}: see .ci/run"
    if os.environ.get("CI") == "true":
        raise AssertionError(reason)
    raise SkipTest(reason)


def helm(*arguments: str) -> tuple[int, str, str]:
    """The exit code, and what it prints on both outputs."""
    program = find("TEST_HELM", "/var/tmp/openhqm-helm/helm", "helm")
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def render(*arguments: str, chart: Path = CHART) -> list[dict[str, Any]]:
    """The documents that the chart makes, as a release called openhqm."""
    code, text, errors = helm("template", "openhqm", str(chart), "--namespace", "shop", *arguments)
    if code:
        raise AssertionError(errors)
    return [each for each in YAML(typ="safe").load_all(text) if each]


def values(**sections: Any) -> tuple[str, ...]:
    """The options that set those values."""
    return tuple(word for key, value in sections.items() for word in ("--set-json", f"{key}={json.dumps(value)}"))


def of_kind(documents: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    (found,) = (each for each in documents if each["kind"] == kind and each["metadata"]["name"].endswith(name))
    return found


def pod(documents: list[dict[str, Any]], name: str = "") -> dict[str, Any]:
    """The pod of the Deployment whose name ends so."""
    spec: dict[str, Any] = of_kind(documents, "Deployment", name)["spec"]["template"]["spec"]
    return spec


def own(spec: dict[str, Any]) -> dict[str, Any]:
    """The container of OpenHQM in a pod."""
    (found,) = (each for each in (*spec.get("initContainers", ()), *spec["containers"]) if each["name"] == "openhqm")
    return dict(found)


def manifests(folder: str) -> list[dict[str, Any]]:
    """The documents of ``deploy/kubernetes``."""
    return [
        document
        for path in sorted((KUBERNETES / folder).glob("*.yaml"))
        for document in YAML(typ="safe").load_all(path.read_text())
    ]


class ChartTests(SynchronousTestCase):
    """What it makes"""

    PROMETHEUS = values(
        worker={"autoscaling": {"enabled": True, "prometheusAddress": "http://prometheus.monitoring:9090"}}
    )

    def test_valid(self) -> None:
        """Helm finds nothing to complain of, and Kubernetes takes what is made of each file of values, strictly."""
        self.assertGreaterEqual(len(EXAMPLES), 5)
        kinds = set()
        for example in (None, *EXAMPLES):
            arguments = ("--values", str(example)) if example else ()
            code, text, errors = helm("lint", "--strict", str(CHART), *arguments)
            self.assertEqual(code, 0, text + errors)
            for document in render(*arguments):
                kinds.add(document["kind"])
                if document["apiVersion"].startswith(CUSTOM):
                    continue
                try:
                    kubernetes_validate.validate(document, "1.37", strict=True)
                except kubernetes_validate.ValidationError as error:
                    self.fail(f"{example}: {document['kind']}: {error}")
        wanted = {"Deployment", "PersistentVolumeClaim", "HorizontalPodAutoscaler", "Ingress", "ScaledObject", "Pod"}
        self.assertGreaterEqual(kinds, wanted | {"ServiceMonitor", "NetworkPolicy", "PodDisruptionBudget"})

    def test_custom_kinds(self) -> None:
        """KEDA's and Prometheus' own types take theirs, here and in the manifests, and would not take another."""
        models = find("TEST_KUBERNETES_MODELS", "/var/tmp/openhqm-kubernetes-models", "node_modules")
        redis = ("--values", str(CHART / "ci" / "redis-values.yaml"))
        documents = [*render(*redis), *render(*redis, *self.PROMETHEUS)]
        for folder in ("keda", "keda-prometheus", "monitoring"):
            documents += manifests(folder)
        custom = [each for each in documents if each["apiVersion"].startswith(CUSTOM)]
        kinds = Counter(each["kind"] for each in custom)
        found = {
            "TriggerAuthentication": 2,
            "ScaledObject": 4,
            "ServiceMonitor": 2,
            "PodMonitor": 1,
            "PrometheusRule": 3,
        }
        self.assertEqual(kinds, found)

        def complaints(*judged: dict[str, Any]) -> str:
            done = subprocess.run(
                ["node", "-e", MODELS], input=json.dumps(judged), cwd=models, capture_output=True, text=True
            )
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            return done.stdout

        self.assertEqual(complaints(*custom), "")
        for document in custom:
            self.assertIn(document["kind"], complaints({**document, "spec": "many"}))

    def test_like_the_manifests(self) -> None:
        """A pod is probed, confined, drained and named by its ports as in ``deploy/kubernetes``, in each role."""
        documents = render("--values", str(CHART / "ci" / "redis-values.yaml"))
        pairs = [
            (pod(documents, "-listener"), pod(manifests("base"), "-listeners")),
            (pod(documents, "-worker"), pod(manifests("base"), "-workers")),
            (pod(render("--values", str(CHART / "ci" / "sidecar-values.yaml"))), pod(manifests("sidecar"))),
        ]
        for chart, manifest in pairs:
            for key in ("terminationGracePeriodSeconds", "enableServiceLinks", "automountServiceAccountToken"):
                self.assertEqual(chart.get(key), manifest.get(key), key)
            for key in manifest["securityContext"]:
                self.assertEqual(chart["securityContext"][key], manifest["securityContext"][key], key)
            ours, theirs = own(chart), own(manifest)
            for key in ("startupProbe", "livenessProbe", "readinessProbe"):
                probe = ours.get(key)
                if probe:
                    self.assertEqual(probe["httpGet"].pop("scheme", "HTTP"), "HTTP")
                self.assertEqual(probe, theirs.get(key), key)
            self.assertEqual(ours["securityContext"].pop("runAsGroup", 10001), 10001)
            self.assertEqual(ours["resources"]["limits"], theirs["resources"]["limits"])
            for key in ("securityContext", "ports", "lifecycle", "restartPolicy", "image"):
                self.assertEqual(ours.get(key), theirs.get(key), key)
        base = manifests("base")
        for kind, name in (("PodDisruptionBudget", ""), ("NetworkPolicy", "worker"), ("NetworkPolicy", "listener")):
            ours, theirs = of_kind(documents, kind, name)["spec"], of_kind(base, kind, name + "s" * bool(name))["spec"]
            for key in ("ingress", "maxUnavailable"):
                self.assertEqual(ours.get(key), theirs.get(key))
        ours, theirs = (of_kind(each, "HorizontalPodAutoscaler")["spec"] for each in (documents, base))
        self.assertEqual(ours["metrics"], theirs["metrics"])
        ours, theirs = (of_kind(each, "ScaledObject")["spec"] for each in (documents, manifests("keda")))
        for ours_trigger, trigger in zip(ours["triggers"], theirs["triggers"], strict=True):
            url = ours_trigger["metadata"].pop("url")
            self.assertEqual(url.replace(".shop:", ":"), trigger["metadata"].pop("url"))
            self.assertEqual(ours_trigger["metadata"], trigger["metadata"])

    def test_scaled_by_prometheus(self) -> None:
        """The backlog comes from Prometheus in the chart as in the manifests, by a metric and states that there are.
        No listener is asked."""
        documents = render("--values", str(CHART / "ci" / "redis-values.yaml"), *self.PROMETHEUS)
        self.assertNotIn("TriggerAuthentication", {each["kind"] for each in documents})
        ours, theirs = (of_kind(each, "ScaledObject")["spec"] for each in (documents, manifests("keda-prometheus")))
        page = (ROOT / "docs" / "operations.md").read_text()
        (row,) = re.findall(r"^\| `openhqm_queue_depth` .*$", page, re.MULTILINE)
        for ours_trigger, trigger, state in zip(
            ours["triggers"], theirs["triggers"], ("in_flight", "ready"), strict=True
        ):
            query = ours_trigger["metadata"]["query"]
            ours_trigger["metadata"]["query"] = query.replace(', namespace="shop"', "")
            self.assertIn(ours_trigger, theirs["triggers"])
            self.assertIn(
                f'openhqm_queue_depth{{job="openhqm", namespace="shop", queue=~"openhqm-requests.*", state="{state}"}}',
                query,
            )
            self.assertIn(state, row)
            self.assertEqual(trigger["type"], "prometheus")
        alone = values(
            roles=["worker"], config=REDIS, worker={"autoscaling": {"enabled": True, "prometheusAddress": "http://p"}}
        )
        of_kind(render(*alone), "ScaledObject")

    def test_alerts(self) -> None:
        """The rules of chart and manifests are those of Prometheus' own file, and the monitors give the job that they
        name."""
        rules = YAML(typ="safe").load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text())
        documents = render("--values", str(CHART / "ci" / "redis-values.yaml"))
        for found in (documents, manifests("monitoring")):
            self.assertEqual(of_kind(found, "PrometheusRule")["spec"], rules, "see scripts/alerts.sh")
        self.assertEqual(of_kind(documents, "PrometheusRule")["metadata"]["labels"]["release"], "prometheus")
        label = of_kind(documents, "ServiceMonitor")["spec"]["jobLabel"]
        selected = [
            each for each in documents if each["kind"] == "Service" and "openhqm/port" in each["metadata"]["labels"]
        ]
        self.assertEqual({each["metadata"]["labels"][label] for each in selected}, {"openhqm"})
        label = of_kind(manifests("monitoring"), "PodMonitor")["spec"]["jobLabel"]
        pods = [
            each["spec"]["template"]["metadata"]["labels"] for each in manifests("base") if each["kind"] == "Deployment"
        ]
        self.assertEqual({each[label] for each in pods}, {"openhqm"})

    def test_selected(self) -> None:
        """Every selector finds pods of the release, and each Service those of its own part."""
        for example in EXAMPLES:
            documents = render("--values", str(example))
            labels = [
                each["spec"]["template"]["metadata"]["labels"] for each in documents if each["kind"] == "Deployment"
            ]
            for document in documents:
                spec = document.get("spec") or {}
                selector = spec.get("podSelector") or spec.get("selector")
                if selector and document["kind"] != "ServiceMonitor":
                    wanted = selector.get("matchLabels", selector)
                    self.assertTrue(any(wanted.items() <= each.items() for each in labels), (example.name, wanted))

    def test_backends(self) -> None:
        """OpenHQM takes the configuration that is made for each queue, in an image that has its packages."""
        names = {"REDIS_URL": {"secret": "redis", "key": "url"}, "EVENT_HUBS": "set", "RABBITMQ_URL": "set"}
        for backend, (config, variant) in BACKENDS.items():
            documents = render(*values(roles=["listener", "worker"], config=config, env=names))
            settings = self.load(documents)
            self.assertEqual((settings.queue.type, settings.admin.port), (backend, 8001))
            for role in ("-listener", "-worker"):
                container = own(pod(documents, role))
                self.assertEqual(container["image"], f"openhqm:latest-{variant}")
                self.assertEqual(container["args"], ["--config", "/etc/openhqm/cfg.yaml", "--role", role[1:]])
        for backend, config in (("sqlite", {"worker": {"handler": "echo"}}), ("memory", {"queue": {"type": "memory"}})):
            documents = render(*values(config={"worker": {"handler": "echo"}, **config}))
            self.assertEqual(self.load(documents).queue.type, backend)
            volumes = {each["name"] for each in pod(documents)["volumes"]}
            self.assertEqual("data" in volumes, backend == "sqlite")
            self.assertEqual(of_kind(documents, "Deployment")["spec"]["strategy"], {"type": "Recreate"})
        for example in EXAMPLES:
            self.load(render("--values", str(example)))

    def load(self, documents: list[dict[str, Any]]) -> Any:
        """What OpenHQM reads in the pod: the file, and the variables of image and pod."""
        path = Path(self.mktemp())
        (text,) = (each["data"]["cfg.yaml"] for each in documents if "cfg.yaml" in each.get("data", {}))
        path.write_text(text)
        image = dict(re.findall(r"(OPENHQM_\w+)='?([^'\s]+)", (ROOT / "Dockerfile").read_text()))
        image["OPENHQM_QUEUE__CONNECTION__SQLITE"] = '{"path": "/data"}'
        containers = [own(each["spec"]["template"]["spec"]) for each in documents if each["kind"] == "Deployment"]
        said = {each["name"]: each.get("value", URLS.get(each["name"])) for each in containers[0]["env"]}
        return load(str(path), {**image, **said, **{name: URLS[name] for name in URLS if name in said}}, PRODUCTS)

    def test_confined(self) -> None:
        """Every pod keeps the pod security standard "restricted", asks for little, and has a limit of memory."""
        for example in (None, *EXAMPLES):
            for document in render(*(("--values", str(example)) if example else ())):
                if document["kind"] not in ("Deployment", "Pod"):
                    continue
                spec = document["spec"] if document["kind"] == "Pod" else document["spec"]["template"]["spec"]
                self.assertIs(spec["securityContext"]["runAsNonRoot"], True)
                self.assertEqual(spec["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
                for container in (*spec.get("initContainers", ()), *spec["containers"]):
                    self.assertIs(container["securityContext"]["allowPrivilegeEscalation"], False)
                    self.assertEqual(container["securityContext"]["capabilities"], {"drop": ["ALL"]})
                    if container["name"] != "application":
                        self.assertIs(container["securityContext"]["readOnlyRootFilesystem"], True)
                        self.assertEqual(container["resources"]["requests"], {"cpu": "50m", "memory": "64Mi"})
                        self.assertIn("memory", container["resources"]["limits"])

    def test_time_to_drain(self) -> None:
        """A pod has the time that the configuration gives to draining, and 15 s more."""
        documents = render(*values(config={"server": {"drain_seconds": 120}}))
        self.assertEqual(pod(documents)["terminationGracePeriodSeconds"], 135)

    def test_another_configuration(self) -> None:
        """A change of the configuration or of a handler starts other pods, and nothing else does."""

        def mark(**sections: Any) -> str:
            template = of_kind(render(*values(**sections)), "Deployment")["spec"]["template"]
            return str(template["metadata"]["annotations"]["openhqm/configuration"])

        marks = [mark(), mark(config={"worker": {"count": 7}}), mark(handlers={"jobs.py": "def handle(x): return x"})]
        self.assertEqual(len(set(marks)), 3)
        self.assertEqual(mark(service={"port": 8080}), marks[0])

    def test_the_test(self) -> None:
        """``helm test`` passes where the release is ready, and fails where it is not."""
        container = of_kind(render(), "Pod")["spec"]["containers"][0]
        program, url = container["args"]
        self.assertEqual(url, "http://openhqm-admin:8001/health/ready")

        def test(port: int) -> int:
            command = [sys.executable, "-c", program, f"http://127.0.0.1:{port}/health/ready"]
            return subprocess.run(command, capture_output=True).returncode

        directory, admin = Path(self.mktemp()), free_port()
        directory.mkdir()
        server = Server(directory, OPENHQM_ADMIN__PORT=str(admin))
        server.start()
        self.addCleanup(lambda: server.process and server.process.poll() is None and server.kill())
        self.assertEqual(test(admin), 0)
        server.stop()
        self.assertNotEqual(test(admin), 0)

    def test_the_next_step(self) -> None:
        """What is printed after an installation says what is missing, how to try it, and where callers go."""
        chart = self.copy()
        notes = (chart / "templates" / "NOTES.txt").read_text()
        (chart / "templates" / "_notes.tpl").write_text(f'{{{{ define "notes" }}}}{notes}{{{{ end }}}}')
        shown = 'kind: Notes\nmetadata: {name: notes}\ntext: |\n  {{- include "notes" . | nindent 2 }}\n'
        (chart / "templates" / "notes.yaml").write_text(shown)

        def said(*arguments: str) -> str:
            return str(of_kind(render(*arguments, chart=chart), "Notes")["text"])

        text = said()
        for step in ("keys new --file keys.json", "secret generic openhqm --from-file=keys.json", "helm -n shop test"):
            self.assertIn(step, text)
        self.assertIn("port-forward service/openhqm 8000:80", text)
        self.assertNotIn("keys.json", said(*values(config={"auth": {"type": "none"}})))
        self.assertNotIn("curl", said("--values", str(CHART / "ci" / "sqs-values.yaml")))
        sidecar = ("--values", str(CHART / "ci" / "sidecar-values.yaml"))
        self.assertIn("Service openhqm", said(*sidecar))
        snippet = said(*sidecar, *values(sidecar={"application": {"image": None}}))
        self.assertIn('{{- include "openhqm.sidecar" .Subcharts.openhqm', snippet)
        self.assertNotIn("fsGroup", snippet)
        files = values(sidecar={"application": {"image": None}}, secretFiles=[{"secret": "tls", "path": "/tls"}])
        self.assertIn("fsGroup: 10001", said(*sidecar, *files))

    def test_in_a_chart_of_an_application(self) -> None:
        """A chart that depends on this one puts the sidecar into its own pods, as the notes say."""
        application = Path(self.mktemp()).absolute()
        shutil.copytree(CHART, application / "charts" / "openhqm")
        (application / "templates").mkdir()
        (application / "Chart.yaml").write_text("{apiVersion: v2, name: shop, version: 1.0.0}\n")
        (application / "templates" / "shop.yaml").write_text(
            """
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      initContainers: {{- include "openhqm.sidecar" .Subcharts.openhqm | nindent 8 }}
      containers: [{name: shop, image: shop}]
      volumes: {{- include "openhqm.sidecar.volumes" .Subcharts.openhqm | nindent 8 }}
"""
        )
        text = (CHART / "ci" / "sidecar-values.yaml").read_text()
        under = {"openhqm": YAML(typ="safe").load(text)}
        under["openhqm"]["sidecar"] = {}
        path = application / "values.yaml"
        path.write_text(json.dumps(under))
        documents = render(chart=application)
        self.assertEqual({each["kind"] for each in documents}, {"Deployment", "ConfigMap"})
        kubernetes_validate.validate(of_kind(documents, "Deployment"), "1.37", strict=True)
        container = own(pod(documents))
        self.assertEqual((container["restartPolicy"], container["image"]), ("Always", "openhqm:latest-redis"))
        self.assertTrue(self.load(documents).proxy.sidecar.enabled)

    def copy(self) -> Path:
        """The chart, to be changed."""
        return Path(shutil.copytree(CHART, Path(self.mktemp()).absolute()))


class RefusedTests(SynchronousTestCase):
    """What it refuses, before anything is installed"""

    def refused(self, sections: dict[str, Any], text: str) -> None:
        code, _, errors = helm("template", "openhqm", str(CHART), *values(**sections))
        self.assertNotEqual(code, 0, sections)
        self.assertIn(text, errors, sections)

    def test_values(self) -> None:
        """A value of the wrong type is refused by its name, and so is one that there is not."""
        for sections, text in (
            ({"role": "all"}, "'role' not allowed"),
            ({"roles": "all"}, "/roles"),
            ({"roles": ["alle"]}, "/roles/0"),
            ({"roles": []}, "/roles"),
            ({"listener": {"replica": 2}}, "'replica' not allowed"),
            ({"listener": {"replicas": "many"}}, "/listener/replicas"),
            ({"worker": {"replicas": -1}}, "/worker/replicas"),
            ({"worker": {"autoscaling": {"enabled": "yes"}}}, "/worker/autoscaling/enabled"),
            ({"image": {"tag": 3}}, "/image/tag"),
            ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
            ({"env": {"REDIS_URL": {"secret": "redis"}}}, "/env/REDIS_URL"),
            ({"env": {"A": 1}}, "/env/A"),
            ({"all": {"resources": {"requests": {"memory": "lots"}}}}, "/all/resources/requests/memory"),
            ({"all": {"resources": {"request": {}}}}, "'request' not allowed"),
            ({"service": {"port": 70000}}, "/service/port"),
            ({"service": {"type": "ExternalName"}}, "/service/type"),
            ({"persistence": {"size": "big"}}, "/persistence/size"),
            ({"secretFiles": [{"secret": "tls", "path": "etc"}]}, "/secretFiles/0/path"),
            ({"handlers": {"jobs": ""}}, "jobs"),
            ({"config": [1]}, "/config"),
            ({"podLabels": {"a": 1}}, "/podLabels/a"),
            ({"serviceMonitor": {"interval": "often"}}, "/serviceMonitor/interval"),
            ({"prometheusRule": {"enabled": 1}}, "/prometheusRule/enabled"),
            ({"worker": {"autoscaling": {"prometheusAddress": "prometheus"}}}, "/worker/autoscaling/prometheusAddress"),
        ):
            self.refused(sections, text)

    def test_what_would_not_run(self) -> None:
        """Values that each may be, and that do not fit each other, are refused with the way out."""
        redis = {"queue": {"type": "redis"}}
        sidecar = {"proxy": {"sidecar": {"enabled": True, "upstream": "http://localhost:8080"}}}
        for sections, text in (
            ({"roles": ["all", "worker"]}, "leave the others out"),
            ({"roles": ["sidecar", "worker"]}, "a release of their own"),
            ({"roles": ["sidecar"]}, "upstream: http://localhost:PORT"),
            ({"roles": ["listener", "worker"]}, "sqlite is for one process"),
            ({"roles": ["worker"], "config": {"queue": {"type": "memory"}}}, "memory is for one process"),
            ({"roles": ["listener"], "config": {"queue": {"type": "kafka"}}}, "config.cache.type: redis"),
            (
                {"roles": ["sidecar"], "config": sidecar, "sidecar": {"application": {"image": "a"}}},
                "gone with its pod",
            ),
            ({"config": {"server": {"port": 9}}}, "config.server.port: the chart sets it"),
            ({"config": {"admin": {"host": "::"}}}, "config.admin.host: the chart sets it"),
            ({"config": {"server": {"workers": 2}}}, "raise listener.replicas"),
            ({"config": {"queue": {"connection": {"sqlite": {"path": "x"}}}}}, "it is /data"),
            ({"existingSecret": None}, "name a Secret with admin-key"),
            ({"worker": {"autoscaling": {"enabled": True}}}, "a listener is asked"),
            ({"roles": ["worker"], "config": redis, "ingress": {"enabled": True}}, "there is no door"),
            ({"ingress": {"enabled": True, "tlsSecret": "tls"}}, "a certificate is for a host"),
        ):
            self.refused(sections, text)
