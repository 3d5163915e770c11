"""The example of section 11.4 of the specification: valid, and working, after the changes that the page names."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import kubernetes_validate
from ruamel.yaml import YAML
from twisted.trial.unittest import SynchronousTestCase

from tests.brokers import RedisServer
from tests.servers import ROOT, Server, free_port

SIDECAR = """
apiVersion: apps/v1
kind: Deployment
metadata:
  name: legacy-app-with-queue
spec:
  replicas: 3
  template:
    spec:
      containers:
      # OpenHQM Sidecar (ingress proxy)
      - name: openhqm-sidecar
        image: openhqm:latest
        command: ["python", "-m", "openhqm.api.listener"]
        ports:
        - containerPort: 8000
          name: http
        env:
        - name: OPENHQM_PROXY__ENABLED
          value: "true"
        - name: OPENHQM_PROXY__DEFAULT_ENDPOINT
          value: "http://localhost:8080"  # Legacy app
        - name: OPENHQM_QUEUE__TYPE
          value: "redis"
        - name: OPENHQM_QUEUE__REDIS_URL
          valueFrom:
            secretKeyRef:
              name: redis-credentials
              key: url
        resources:
          requests:
            cpu: 100m
            memory: 128Mi
          limits:
            cpu: 500m
            memory: 512Mi

      # Legacy Application (unchanged)
      - name: legacy-app
        image: legacy-app:v1.0
        ports:
        - containerPort: 8080
        resources:
          requests:
            cpu: 500m
            memory: 1Gi
"""
WORKERS = """
# Separate worker deployment (scales independently)
apiVersion: apps/v1
kind: Deployment
metadata:
  name: openhqm-workers
spec:
  replicas: 10  # Scale based on queue depth
  template:
    spec:
      containers:
      - name: worker
        image: openhqm:latest
        command: ["python", "-m", "openhqm.worker.worker"]
        env:
        - name: OPENHQM_PROXY__ENABLED
          value: "true"
        - name: OPENHQM_PROXY__DEFAULT_ENDPOINT
          value: "http://legacy-app-service:8080"
        - name: OPENHQM_QUEUE__TYPE
          value: "redis"
        - name: OPENHQM_QUEUE__REDIS_URL
          valueFrom:
            secretKeyRef:
              name: redis-credentials
              key: url
"""


def changed(text: str, role: str) -> dict[str, Any]:
    """The Deployment after the changes: a selector and labels, the role as an argument, and who may call."""
    found: dict[str, Any] = YAML(typ="safe").load(text)
    labels = {"app.kubernetes.io/name": found["metadata"]["name"]}
    found["spec"]["selector"] = {"matchLabels": labels}
    found["spec"]["template"]["metadata"] = {"labels": labels}
    container = found["spec"]["template"]["spec"]["containers"][0]
    del container["command"]
    container["args"] = ["--role", role]
    if role == "listener":
        container["env"].append({"name": "OPENHQM_AUTH__TYPE", "value": "none"})
    return found


class Application(BaseHTTPRequestHandler):
    """The legacy application"""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


class SidecarExampleTests(SynchronousTestCase):
    def test_valid(self) -> None:
        """Kubernetes' own schemas take it strictly after the changes, and not before."""
        for text, role in ((SIDECAR, "listener"), (WORKERS, "worker")):
            with self.assertRaises(kubernetes_validate.ValidationError):
                kubernetes_validate.validate(YAML(typ="safe").load(text), "1.37", strict=True)
            kubernetes_validate.validate(changed(text, role), "1.37", strict=True)

    def test_named(self) -> None:
        """The page names each change."""
        page = (ROOT / "docs" / "KUBERNETES_SIDECAR.md").read_text(encoding="utf-8")
        paragraph = page.partition("The example of the specification (11.4)")[2].partition("\n\n")[0]
        for change in ("selector", "labels", '"--role", "listener"', '"--role", "worker"', "OPENHQM_AUTH__TYPE"):
            self.assertIn(change, paragraph)

    def test_works(self) -> None:
        """A request to the sidecar is answered by the application, which a worker of the other Deployment
        has called."""
        application = ThreadingHTTPServer(("127.0.0.1", 0), Application)
        application.daemon_threads = True
        threading.Thread(target=application.serve_forever, daemon=True).start()
        self.addCleanup(application.server_close)
        self.addCleanup(application.shutdown)
        redis = RedisServer().start()
        self.addCleanup(redis.close)
        image = dict(re.findall(r"(OPENHQM_\w+)=([\w.]+)", (ROOT / "Dockerfile").read_text()))
        servers = []
        for text, role in ((SIDECAR, "listener"), (WORKERS, "worker")):
            directory = Path(self.mktemp())
            directory.mkdir()
            container = changed(text, role)["spec"]["template"]["spec"]["containers"][0]
            said = {each["name"]: each.get("value", redis.url) for each in container["env"]}
            said["OPENHQM_PROXY__DEFAULT_ENDPOINT"] = f"http://127.0.0.1:{application.server_port}"
            # Here both are on one machine; in pods each has the ports of the image.
            ports = {"OPENHQM_ADMIN__PORT": str(free_port())}
            server = Server(directory, **{**image, **said, **ports, "OPENHQM_WORKER__HANDLER": ""})
            server.environment.pop("OPENHQM_SERVER__PORT")
            self.addCleanup(lambda server=server: server.process and server.process.poll() is None and server.kill())
            server.launch(*container["args"])
            servers.append(server)
        listener = servers[0]
        listener.until(lambda: listener.ask("GET", "/health/ready")[0] == 200, "not ready")
        status, _, body = listener.ask(
            "POST", "/api/v1/submit", {"payload": {"report": 7}}, {"Prefer": "wait=20"}, timeout=40
        )
        self.assertEqual(status, 200, f"{body!r}\n{servers[1].log()}")
        self.assertEqual((status, json.loads(body)["result"]), (200, {"report": 7}))
        self.assertEqual([each.stop() for each in servers], [0, 0])
