"""Secrets are in nothing that a process writes or answers: each is a canary, and every output is searched for it."""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

from twisted.trial.unittest import SynchronousTestCase

from openhqm.backends import PRODUCTS
from openhqm.config.loading import load
from openhqm.errors import ConfigurationError
from openhqm.policy.api_keys import Role
from tests.ingress.test_access import made, write
from tests.servers import ROOT, Server, free_port
from tests.signing import ISSUER, base64, claims, signed

JOBS = """
from openhqm.errors import Reject

def handle(job):
    if job.payload == "raise":
        raise RuntimeError("the handler has failed")
    if job.payload == "refuse":
        raise Reject("not today")
    return {"done": job.payload}
"""
RUN = "import sys; from openhqm.command.main import run; sys.exit(run())"
HOOK_BODY = b'{"event":"push"}'


def canary(name: str) -> str:
    """A secret that occurs nowhere else."""
    return f"cnry{name}{hashlib.sha256(name.encode()).hexdigest()[:24]}"


class Target:
    """An endpoint whose answer is the status that the path of its URL begins with. It keeps the heads it was sent."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        target = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                target.heads.append(f"{self.path}\n{self.headers}")
                self.send_response(int(self.path[1:4]))
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()
        self.origin = f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def answer_garbage(listening: socket.socket) -> None:
    """Answer each connection with what is no HTTP, until the socket is closed."""
    while listening.fileno() != -1:
        try:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"garbage\r\n\r\n")
        except OSError:  # it is closed, or its peer is gone
            continue


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="openhqm-canaries-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.target = Target()
        self.addCleanup(self.target.close)
        self.away = free_port()
        (self.directory / "jobs.py").write_text(JOBS)
        self.keys = {role: made(id, frozenset({role})) for id, role in zip("abcd", Role, strict=True)}
        everything = made("e", frozenset(Role))
        self.key = everything[0]
        write(self.directory / "keys.json", *(key for _, key in self.keys.values()), everything[1])
        self.shared = canary("hs")
        secret_file = self.directory / "hs"
        secret_file.write_text(self.shared * 2)
        secret_file.chmod(0o600)
        self.callback = b64encode(canary("callback").encode()).decode()
        self.secrets = {
            "admin key": canary("admin"),
            "bearer": canary("bearer"),
            "basic": canary("basic"),
            "header key": canary("apikey"),
            "fixed header": canary("fixed"),
            "query": canary("query"),
            "client secret": canary("client"),
            "egress proxy": canary("egress"),
            "hook": canary("hook"),
            "amqp": canary("amqp"),
            "mqtt": canary("mqtt"),
            "redis": canary("redis"),
        }
        self.config = self.configuration()

    def configuration(self) -> dict[str, Any]:
        """All that can hold a secret in one process on the embedded file."""
        secrets, here = self.secrets, self.target.origin
        issuer = {
            "issuer": ISSUER,
            "audiences": ["openhqm"],
            "algorithms": ["HS256"],
            "secret_file": str(self.directory / "hs"),
            "tenant": "shop",
            "roles": [role.value for role in Role],
        }
        return {
            "auth": {
                "type": "any",
                "keys_file": str(self.directory / "keys.json"),
                "jwt": {"issuers": [issuer]},
            },
            "admin": {"port": free_port(), "key": secrets["admin key"]},
            "hooks": {"code": {"preset": "github", "secrets": [secrets["hook"]]}},
            "callbacks": {"secrets": [f"whsec_{self.callback}"], "allow": [here], "schedule": [1]},
            "monitoring": {"log_level": "DEBUG", "access_log": True},
            "worker": {
                "handler": "jobs:handle",
                "max_retries": 1,
                "retry": {"base_seconds": 0.05, "max_seconds": 0.1},
            },
            "brokers": {
                "plant": {"type": "rabbitmq", "url": f"amqp://user:{secrets['amqp']}@127.0.0.1:{self.away}/%2F"},
                "field": {
                    "type": "mqtt",
                    "host": "127.0.0.1",
                    "port": self.away,
                    "username": "user",
                    "password": secrets["mqtt"],
                },
                "cache": {"type": "redis", "url": f"redis://user:{secrets['redis']}@127.0.0.1:{self.away}/0"},
            },
            "bridges": [
                {"name": "plant", "from": {"broker": "plant", "queue": "orders"}},
                {"name": "field", "from": {"broker": "field", "topics": ["a/+"]}},
            ],
            "proxy": {
                "enabled": True,
                "endpoints": {
                    "good": {
                        "url": f"{here}/200?sig={secrets['query']}",
                        "auth_type": "bearer",
                        "auth_token": secrets["bearer"],
                        "headers": {"X-Shared": secrets["fixed header"]},
                    },
                    "fails": {
                        "url": f"{here}/500?sig={secrets['query']}",
                        "auth_type": "basic",
                        "auth_username": "user",
                        "auth_password": secrets["basic"],
                    },
                    "refuses": {
                        "url": f"{here}/401?sig={secrets['query']}",
                        "auth_type": "api_key",
                        "auth_header_name": "X-Api-Key",
                        "auth_token": secrets["header key"],
                    },
                    "away": {"url": f"http://127.0.0.1:{self.away}/?sig={secrets['query']}", "timeout": 1},
                    "unproven": {
                        "url": f"{here}/200",
                        "auth_type": "oauth2_client_credentials",
                        "auth_token_url": f"{here}/401?sig={secrets['query']}",
                        "auth_client_id": "us",
                        "auth_client_secret": secrets["client secret"],
                    },
                    "through": {
                        "url": "http://a.test/",
                        "egress_proxy": f"http://127.0.0.1:{self.away}",
                        "egress_proxy_username": "user",
                        "egress_proxy_password": secrets["egress proxy"],
                    },
                    "lamp": {"publish": {"broker": "plant", "topic": "lamps"}, "timeout": 1},
                },
            },
        }

    def forms(self) -> dict[str, str]:
        """Each canary in each form in which it could be written, with a name for the failure."""
        found = {}
        for name, secret in self.all_secrets().items():
            found[name] = secret
            found[f"{name} in base64"] = b64encode(secret.encode()).decode().rstrip("=")
            found[f"{name} in base64, with a name"] = b64encode(f"user:{secret}".encode()).decode().rstrip("=")
            found[f"{name} in base64url"] = urlsafe_b64encode(secret.encode()).decode().rstrip("=")
            found[f"{name} in hexadecimal"] = secret.encode().hex()
            found[f"{name} in a URL"] = quote(secret, safe="")
        return found

    def all_secrets(self) -> dict[str, str]:
        """The secrets of the configuration, and those of callers."""
        return {
            **self.secrets,
            "secret of tokens": self.shared,
            "secret of callbacks": self.callback,
            "key": self.key,
            **{f"key of {role}": secret for role, (secret, _) in self.keys.items()},
        }

    def search(self, outputs: Mapping[str, bytes], *, forms: Mapping[str, str] | None = None) -> None:
        """Fail where an output has a canary."""
        found = [
            f"{name} is in {where}: ...{text[max(0, at - 120) : at + 40]!r}..."
            for where, text in outputs.items()
            for name, form in (forms or self.forms()).items()
            if (at := text.find(form.encode())) >= 0
        ]
        self.assertEqual(found, [], "\n".join(found))

    def write(self, config: Any, name: str = "cfg.yaml") -> Path:
        path = self.directory / name
        path.write_text(config if isinstance(config, str) else json.dumps(config))
        return path


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Each text in a document, with its path."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from leaves(each, (*path, name))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from leaves(each, (*path, index))
    elif isinstance(value, str):
        yield path, value


def said(path: Path | None, **environment: str) -> bytes:
    """What is said of a configuration: the complaint, or the settings as a debugger shows them."""
    try:
        return repr(load(None if path is None else str(path), environment, PRODUCTS)).encode()
    except ConfigurationError as error:
        return f"{error}\n{error!r}".encode()


def changed(document: Any, path: tuple[Any, ...], change: Any) -> Any:
    """A copy of a document in which ``change`` has changed the mapping or list that ends at ``path``."""
    copied = copy.deepcopy(document)
    holder = copied
    for each in path[:-1]:
        holder = holder[each]
    change(holder, path[-1])
    return copied


class ConfigurationTests(Case):
    """Configurations that are wrong near a secret"""

    def test_complaints(self) -> None:
        """However a value with a secret is wrong, and wherever it was put, the complaint has not the secret."""
        forms = self.forms()
        holding = [(path, text) for path, text in leaves(self.config) if any(form in text for form in forms.values())]
        self.assertGreater(len(holding), 15)

        def misspell(holder: Any, key: Any) -> None:
            if isinstance(holder, dict):
                holder[f"{key}x"] = holder.pop(key)
            else:
                holder[key] = {"x": holder[key]}

        def put(make: Any) -> Any:
            def change(holder: Any, key: Any) -> None:
                holder[key] = make(holder[key])

            return change

        changes = {
            "misspelt": misspell,
            "a list": put(lambda text: [text]),
            "a list in a list": put(lambda text: [[text]]),
            "a mapping": put(lambda text: {text: 1}),
            "with a line break": put(lambda text: f"{text}\n"),
            "not ASCII": put(lambda text: f"{text}\u00fc"),
            "with a fragment": put(lambda text: f"{text}#"),
            "with a space": put(lambda text: f" {text} "),
            "another scheme": put(lambda text: f"ftp://user:{text.rpartition('/')[2]}@h:x/"),
            "with a name in a URL": put(lambda text: f"http://user:{text.rpartition('/')[2]}@h/"),
        }
        outputs = {}
        for path, text in holding:
            for how, change in changes.items():
                file = self.write(changed(self.config, path, change))
                outputs[f"{'.'.join(map(str, path))}, {how}"] = said(file)
            for up in range(1, len(path)):  # in place of the mapping or the list that it stands in
                file = self.write(changed(self.config, path[:-up], put(lambda _, text=text: text)))
                outputs[f"{'.'.join(map(str, path[:-up]))}, the value itself"] = said(file)
        self.search(outputs, forms=forms)

    def test_environment(self) -> None:
        """So it is where the value comes from a variable, whole, as broken JSON, and within a text."""
        outputs = {}
        forms = self.forms()
        for path, text in leaves(self.config):
            if not any(form in text for form in forms.values()):
                continue
            keys = [str(each).upper() for each in path]
            for count in range(1, len(keys) + 1):
                name = "OPENHQM_" + "__".join(keys[:count])
                for value in (text, f'{{"x": "{text}"', f'["{text}"]', f'{{"x": "{text}"}}'):
                    outputs[f"{name}={value[:6]}"] = said(None, **{name: value})
        self.search(outputs, forms=forms)

    def test_not_yaml(self) -> None:
        """A file that is no YAML near a secret is refused without the text around."""
        secret = self.secrets["bearer"]
        outputs = {}
        for text in (
            f"proxy: {{auth_token: {secret}",
            f"proxy:\n  auth_token: {secret}: x\n",
            f"proxy:\n\tauth_token: {secret}\n",
            f"auth_token: '{secret}\n",
            f"auth_token: *{secret}\n",
            f"auth_token: !{secret} x\n",
            f"auth_token: !!{secret} x\n",
            f"auth_token: {secret}\nauth_token: {secret}\n",
            f"auth_token: !{secret}!x y\n",
            f"a: &{secret} 1\nb: &{secret} 2\nc: [\n",
            f"- {secret}\n",
            secret,
            f"proxy: {{{secret}}}: 1\n",
            f'auth_token: "\\q{secret}"\n',
            f"auth_token: @{secret}\n",
        ):
            outputs[text] = said(self.write(text))
            self.assertIn(b"ConfigurationError", outputs[text])
        self.search(outputs, forms={"bearer": secret})


class ProcessTests(Case):
    """A process with secrets of all kinds"""

    def test_no_output(self) -> None:
        """Successes, failures, refusals, dead letters and tracebacks at debug level: no output has a secret."""
        outputs: dict[str, bytes] = {}
        path = self.write(self.config)
        server = Server(self.directory)
        server.start("--config", str(path))
        self.addCleanup(lambda: server.process and server.process.poll() is None and server.kill())

        def ask(method: str, target: str, body: Any = None, headers: Mapping[str, str] | None = None) -> bytes:
            status, fields, content = server.ask(method, target, body, dict(headers or {}))
            where = f"{method} {target[:60]} {sorted(headers or ())}"
            outputs[f"{len(outputs)} {where}"] = f"{status} {fields}".encode() + content
            return content

        now = int(time.time())
        header = base64(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
        token = signed(
            (self.shared * 2).encode(), header + b"." + base64(json.dumps(claims(iat=now, exp=now + 300)).encode())
        )
        self.secrets["token"] = token.decode()
        us = {"OpenHQM-Key": self.key}
        ids = []

        def submit(payload: Any, headers: Mapping[str, str] = us, **metadata: Any) -> None:
            found = json.loads(ask("POST", "/api/v1/submit", {"payload": payload, "metadata": metadata}, headers))
            ids.append(found["correlation_id"])

        self.secrets["query of a callback"] = canary("callbackquery")
        follow = f"?token={self.secrets['query of a callback']}"
        for payload in ("fine", "raise", "refuse"):
            submit(payload)
            submit(payload, {"Authorization": f"Bearer {token.decode()}"})
        for endpoint in self.config["proxy"]["endpoints"]:
            submit("x", endpoint=endpoint, timeout=2)
        submit("fine", callback_url=f"{self.target.origin}/200{follow}")
        submit("fine", callback_url=f"{self.target.origin}/410{follow}")
        self.hook(ask)
        self.strange(ask, server)
        for each in ids:
            for route in ("response", "status", "events"):
                ask("GET", f"/api/v1/{route}/{each}{'?wait=8' if route == 'response' else ''}", None, us)
            ask("GET", f"/api/v1/response/{each}/body", None, us)
        server.until(lambda: sum("/410" in head for head in self.target.heads), "no callback came")
        sent = "\n".join(self.target.heads)
        basic = b64encode(f"user:{self.secrets['basic']}".encode()).decode()
        for name in ("bearer", "header key", "fixed header", "query", "query of a callback"):
            self.assertIn(self.secrets[name], sent)  # else this test is about nothing
        self.assertIn(basic, sent)
        letters = json.loads(ask("GET", "/api/v1/dead-letters", None, us))
        self.assertGreaterEqual(len(letters["dead_letters"]), 5)
        for each in letters["dead_letters"]:
            ask("GET", f"/api/v1/dead-letters/{each['number']}", None, us)
        for route in ("/health", "/health/ready", "/metrics", "/openapi.json", "/docs", "/nothing"):
            for headers in ({}, us, {"Authorization": f"Bearer {self.keys[Role.READ][0]}"}):
                ask("GET", route, None, headers)
        self.admin(outputs)
        for arguments in (["dead", "list", "--json"], ["dead", "list"], ["dead", "show", "1", "2", "3"]):
            self.openhqm(outputs, *arguments, "--url", f"http://127.0.0.1:{server.port}", OHQM_KEY=self.key)
        # A configuration that has become wrong is refused while it runs.
        wrong = changed(
            self.config,
            ("proxy", "endpoints", "good", "auth_token"),
            lambda holder, key: holder.update({key: [holder[key]]}),
        )
        self.write(wrong)
        before = server.log().count("auth_token")
        server.process.send_signal(1)  # type: ignore[union-attr]
        server.until(lambda: server.log().count("auth_token") > before, "the file was not read again")
        self.openhqm(outputs, "check", "--config", str(path))
        self.write(self.config)
        self.assertEqual(server.stop(), 0)
        self.openhqm(outputs, "check", "--config", str(path))
        self.openhqm(outputs, "config", "schema")
        outputs["the log"] = server.log().encode()
        self.assertIn(b"the handler has failed", outputs["the log"])
        kept = {where: text for where, text in outputs.items() if "/dead-letters/" in where or "show" in where}
        self.search({where: text for where, text in outputs.items() if where not in kept})
        files = {str(each): each.read_bytes() for each in (self.directory / "data").rglob("*") if each.is_file()}
        self.assertTrue(files)
        # The URL is called after a restart, and after a redrive, so it has to be kept.
        del self.secrets["query of a callback"]
        self.search({**files, **kept})

    def hook(self, ask: Any) -> None:
        """A webhook that is signed, and one that is not, each with credentials that are not for us."""
        self.secrets["cookie"] = canary("cookie")
        signature = hmac.new(self.secrets["hook"].encode(), HOOK_BODY, "sha256").hexdigest()
        for id, text in (("1", signature), ("2", "0" * 64)):
            fields = {
                "X-GitHub-Delivery": id,
                "X-Hub-Signature-256": f"sha256={text}",
                "Cookie": f"session={self.secrets['cookie']}",
                "Authorization": f"Bearer {self.key}",
            }
            ask("POST", "/hooks/code", HOOK_BODY, fields)

    def strange(self, ask: Any, server: Server) -> None:
        """Credentials where they do not belong, and in requests that are refused."""
        wrong, admin = self.keys[Role.CANCEL][0], self.key
        self.secrets["query of a request"] = canary("requestquery")
        for target in (
            f"/api/v1/status/x?key={admin}",
            f"/api/v1/status/{admin}",
            f"/{admin}",
            f"/hooks/{admin}",
            f"/health/live?key={admin}",
            f"/api/v1/status/x?access_token={self.secrets['token']}",
            f"/api/v1/status/{self.secrets['token']}",
            f"/api/v1/response/00000000-0000-4000-8000-000000000000?wait={self.secrets['query of a request']}",
            f"/api/v1/dead-letters?limit={self.secrets['query of a request']}",
            f"/nothing?x={self.secrets['query of a request']}",
        ):
            ask("GET", target, None, {"OpenHQM-Key": admin})
            ask("GET", target)
        body = {"payload": 1}
        ask("POST", "/api/v1/submit", body, {"OpenHQM-Key": wrong})
        ask("POST", "/api/v1/submit", body, {"OpenHQM-Key": admin, "Idempotency-Key": "\t"})
        ask(
            "POST",
            "/api/v1/submit",
            {"payload": 1, "metadata": {"callback_url": f"http://u:{wrong}@a.test/"}},
            {"OpenHQM-Key": admin},
        )
        for lines in (
            f"Authorization: Bearer {admin}\nOpenHQM-Key: {admin}\n bad",
            f"Authorization: Bearer {admin}\x01",
            f"Authorization : Bearer {admin}",
            f"OpenHQM-Key: {admin}\nOpenHQM-Key: {wrong}",
            f"Authorization: Bearer {admin}\nTransfer-Encoding: x",
            f"Authorization: Basic {admin}",
            f"Cookie: {admin}",
            f"Prefer: wait={admin}",
            f"Traceparent: {admin}",
        ):
            head = f"GET /health HTTP/1.1\nHost: a\n{lines}\n\n".replace("\n", "\r\n")
            with socket.create_connection(("127.0.0.1", server.port), 10) as peer:
                peer.sendall(head.encode())
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(65536):
                    pass

    def admin(self, outputs: dict[str, bytes]) -> None:
        """The admin listener, with its key, another one, and none."""
        port = self.config["admin"]["port"]
        asked = Server(self.directory)
        asked.port = port
        for key in (self.secrets["admin key"], self.key, None):
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            for target in ("/health", "/metrics", "/admin/api/v1/scaler/openhqm-requests", "/nothing"):
                status, fields, content = asked.ask("GET", target, None, headers)
                outputs[f"admin {target} {key is None}"] = f"{status} {fields}".encode() + content

    def openhqm(self, outputs: dict[str, bytes], *arguments: str, **environment: str) -> None:
        """Run the command, and keep what it prints."""
        done = subprocess.run(
            [sys.executable, "-c", RUN, *arguments],
            cwd=self.directory,
            env={
                **Server(self.directory).variables("--config"),
                "PYTHONPATH": f"{ROOT}:{self.directory}",
                **environment,
            },
            capture_output=True,
            timeout=60,
        )
        outputs[f"{len(outputs)} openhqm {arguments[:2]}"] = done.stdout + done.stderr


class SidecarTests(Case):
    """A process in front of an application that answers garbage"""

    def test_no_log(self) -> None:
        """What a client sends to the application, in the query and in credentials, is in no log and no problem."""
        application = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(application.close)
        Thread(target=answer_garbage, args=(application,), daemon=True).start()
        server = Server(
            self.directory,
            OPENHQM_PROXY__SIDECAR__ENABLED="true",
            OPENHQM_PROXY__SIDECAR__UPSTREAM=f"http://127.0.0.1:{application.getsockname()[1]}",
            OPENHQM_WORKER__ENABLED="false",
            OPENHQM_MONITORING__LOG_LEVEL="DEBUG",
        )
        server.start()
        self.addCleanup(server.stop)
        secret = canary("application")
        fields = {"Authorization": f"Bearer {secret}", "Cookie": f"session={secret}"}
        answers = [server.ask(method, f"/orders?token={secret}", None, fields) for method in ("GET", "POST", "PUT")]
        self.assertEqual({status for status, _, _ in answers}, {502})
        server.until(lambda: "/orders" in server.log(), "it was not logged")
        outputs = {"the answers": repr(answers).encode(), "the log": server.log().encode()}
        self.search(outputs, forms={"token": secret})
