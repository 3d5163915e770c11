"""A door with TLS, and client certificates: real clients against a real process."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import sys
import time
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.ingress.access import OPEN, TABLE
from tests.authorities import CLIENT, SERVER, Authority
from tests.ingress.test_access import FINISHING, target_of
from tests.servers import Server, free_port
from tests.signing import ISSUER, claims, jwk, jwks, rsa_key, token

TREQ = """
import sys, treq
from twisted.internet.task import react
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS
url, ca = sys.argv[1:]
async def main(reactor):
    trusted = trustRootFromCertificates([Certificate.loadPEM(open(ca).read())])
    client = treq.client.HTTPClient(Agent(reactor, BrowserLikePolicyForHTTPS(trusted)))
    answer = await client.post(url, json={"payload": 1}, headers={"Prefer": "wait=10"})
    print(answer.code, (await answer.json())["result"])
react(lambda reactor: __import__("twisted.internet.defer", fromlist=["x"]).ensureDeferred(main(reactor)))
"""


class TLSCase(SynchronousTestCase):
    """A process with TLS."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.authority = Authority(self.directory)
        self.cert, self.key = self.authority.issue("server", "DNS:localhost", "IP:127.0.0.1", usage=[SERVER])

    def made(self, tls: dict[str, Any] | None = None, **environment: str) -> Server:
        files = {"cert": str(self.cert), "key": str(self.key), **(tls or {})}
        return Server(
            self.directory,
            OPENHQM_QUEUE__TYPE="memory",
            OPENHQM_SERVER__TLS=json.dumps({name: each for name, each in files.items() if each is not None}),
            **environment,
        )

    def started(self, tls: dict[str, Any] | None = None, **environment: str) -> Server:
        server = self.made(tls, **environment)
        server.launch()
        self.addCleanup(server.stop)
        server.until(lambda: self.ask(server, "GET", "/health/ready")[0] == 200, "not ready within 30 s")
        return server

    def context(self, client: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority.ca))
        if client is not None:
            context.load_cert_chain(*client)
        return context

    def connection(self, server: Server, client: tuple[Path, Path] | None = None) -> HTTPSConnection:
        return HTTPSConnection("localhost", server.port, timeout=20, context=self.context(client))

    def ask(
        self,
        server: Server,
        method: str,
        path: str,
        client: tuple[Path, Path] | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Status and body, on a connection of its own."""
        connection = self.connection(server, client)
        try:
            body = b'{"payload": 1}' if method == "POST" else None
            connection.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def s_client(self, server: Server, *arguments: str, text: str = "") -> str:
        """What ``openssl s_client`` prints."""
        command = ["openssl", "s_client", "-connect", f"localhost:{server.port}", "-CAfile", str(self.authority.ca)]
        done = subprocess.run(
            [*command, *arguments], input=text, capture_output=True, text=True, timeout=60, check=False
        )
        return done.stdout + done.stderr


class TLSTests(TLSCase):
    """``server.tls``"""

    def test_clients(self) -> None:
        """curl, treq, openssl and Python's own client verify the certificate, and are served; http gets nothing."""
        server = self.started()
        url = f"https://localhost:{server.port}/api/v1/submit"
        curl = ["curl", "-sS", "--cacert", str(self.authority.ca), "-H", "Content-Type: application/json"]
        curled = subprocess.run(
            [*curl, "-H", "Prefer: wait=10", "-d", '{"payload": 1}', url], capture_output=True, text=True, timeout=60
        )
        self.assertIn('"result":1', curled.stdout, curled.stderr)
        treqed = subprocess.run(
            [sys.executable, "-c", TREQ, url, str(self.authority.ca)], capture_output=True, text=True, timeout=60
        )
        self.assertEqual(treqed.stdout, "200 1\n", treqed.stderr)
        said = self.s_client(server, "-alpn", "h2,http/1.1", "-verify_return_error")
        self.assertIn("Verify return code: 0 (ok)", said)
        self.assertIn("ALPN protocol: http/1.1", said)
        self.assertIn("https://127.0.0.1", server.log())
        with contextlib.suppress(OSError):
            self.assertNotIn(server.ask("GET", "/health/live", timeout=5)[0], (200,))

    def test_hsts(self) -> None:
        """Browsers are told to call by https only where that is configured, by refusals, too; and to sniff no type."""
        curl = ["curl", "-sSi", "--cacert", str(self.authority.ca)]
        for seconds, expected in ((None, False), (86400, True)):
            server = self.started({"hsts_seconds": seconds})
            for path in ("/health/live", "/openapi.json", "/nothing", "/api/v1/status/x"):
                url = f"https://localhost:{server.port}{path}"
                said = subprocess.run([*curl, url], capture_output=True, text=True, timeout=60).stdout.lower()
                self.assertEqual("strict-transport-security: max-age=86400\n" in said, expected, said)
                self.assertIn("x-content-type-options: nosniff", said)

    def test_versions(self) -> None:
        """TLS 1.2 and 1.3 are spoken, and nothing older; where 1.3 is the least, 1.2 is not."""
        low = ["-cipher", "ALL:@SECLEVEL=0"]
        server = self.started()
        for arguments, good in (
            (["-tls1_3"], True),
            (["-tls1_2"], True),
            (["-tls1_1", *low], False),
            (["-tls1", *low], False),
        ):
            said = self.s_client(server, *arguments)
            self.assertEqual("Verify return code: 0 (ok)" in said and "Cipher is (NONE)" not in said, good, said)
        # A renegotiation costs the server more than the client, and brings nothing.
        self.assertIn("no renegotiation", self.s_client(server, "-tls1_2", text="R\n"))
        server.stop()
        server = self.started({"minimum_version": "1.3"})
        self.assertIn("Cipher is (NONE)", self.s_client(server, "-tls1_2"))
        self.assertIn("Verify return code: 0 (ok)", self.s_client(server, "-tls1_3"))

    def test_changed(self) -> None:
        """A new certificate is shown within seconds, an open connection goes on, and the gauge says when it expires."""
        server = self.started()
        kept = self.connection(server)
        self.addCleanup(kept.close)

        def live(connection: HTTPSConnection) -> int:
            connection.request("GET", "/health/live")
            answer = connection.getresponse()
            answer.read()
            return answer.status

        def serial() -> str:
            connection = self.connection(server)
            connection.connect()
            try:
                return str(connection.sock.getpeercert()["serialNumber"])
            finally:
                connection.close()

        self.assertEqual(live(kept), 200)
        first = serial()
        # A file that cannot be used changes nothing, and the log says so.
        whole = self.cert.read_bytes()
        self.cert.write_bytes(b"broken")
        server.until(lambda: (serial() == first) and "server.tls.cert: " in server.log(), "it was not said")
        self.cert.write_bytes(whole)
        self.authority.issue("server", "DNS:localhost", usage=[SERVER], seconds=600)
        server.until(lambda: serial() != first, "the new certificate is not shown")
        self.assertEqual(live(kept), 200)
        metrics = self.ask(server, "GET", "/metrics")[1].decode()
        (line,) = [each for each in metrics.splitlines() if f'expiry_seconds{{file="{self.cert}"}}' in each]
        self.assertTrue(0 < float(line.split()[-1]) <= 600, line)

    def test_admin(self) -> None:
        """The admin listener has TLS of its own."""
        port = free_port()
        admin = {"port": port, "key": "a-key-of-an-operator", "tls": {"cert": str(self.cert), "key": str(self.key)}}
        server = Server(self.directory, OPENHQM_QUEUE__TYPE="memory", OPENHQM_ADMIN=json.dumps(admin))
        server.start()
        self.addCleanup(server.stop)
        for key, status in (("a-key-of-an-operator", 200), ("another", 401)):
            connection = HTTPSConnection("localhost", port, timeout=20, context=self.context())
            connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {key}"})
            self.assertEqual(connection.getresponse().status, status)
            connection.close()
        (self.directory / "empty.key").touch(0o600)
        admin["tls"] = {"cert": str(self.cert), "key": "empty.key"}
        server = Server(self.directory, OPENHQM_QUEUE__TYPE="memory", OPENHQM_ADMIN=json.dumps(admin))
        self.assertIn("admin.tls.key: empty.key holds no private key", server.run()[2])

    def test_not_started(self) -> None:
        """What cannot be used ends the process with a line that has the key, the file and the cure."""
        other = self.authority.issue("other", "DNS:localhost")[1]
        readable = self.directory / "readable.key"
        readable.write_bytes(self.key.read_bytes())
        readable.chmod(0o644)
        empty = self.directory / "empty"
        empty.write_bytes(b"")
        empty.chmod(0o600)
        for tls, key, word in (
            ({"key": None}, "key", "missing"),
            ({"cert": None}, "cert", "missing"),
            ({"key": str(other)}, "key", "is not the key of"),
            ({"key": str(readable)}, "key", "chmod 640"),
            ({"key": str(empty)}, "key", "no private key"),
            ({"key": "gone"}, "key", "No such file"),
            ({"cert": "gone"}, "cert", "No such file"),
            ({"cert": str(empty)}, "cert", "no certificate"),
            ({"minimum_version": "1.1"}, "minimum_version", "1.2 or 1.3"),
            ({"client_ca": str(empty)}, "client_ca", "auth.mtls.clients"),
        ):
            code, _, errors = self.made(tls).run()
            self.assertEqual(code, 1, errors)
            self.assertIn(f"server.tls.{key}: ", errors)
            self.assertIn(word, errors)

    def test_handshake_that_does_not_come(self) -> None:
        """A client that connects and says nothing, or something else than TLS, does not stay, nor harm others."""
        server = self.started()
        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
        for each in silent[10:]:
            each.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertEqual(self.ask(server, "GET", "/health/live")[0], 200)
        for each in silent:
            each.settimeout(30)
            began = time.monotonic()
            with contextlib.suppress(OSError):
                while each.recv(4096):
                    pass
            self.assertLess(time.monotonic() - began, 25)
            each.close()


class MTLSTests(TLSCase):
    """``auth.type: mtls``"""

    def auth(self, kind: str = "mtls", *more: dict[str, Any]) -> dict[str, str]:
        clients = [
            {"san": "URI:spiffe://acme/billing", "tenant": "acme", "roles": ["submit"]},
            {"subject": "CN=operator,O=Acme", "tenant": "acme", "roles": ["admin"]},
            *more,
        ]
        return {"OPENHQM_AUTH__TYPE": kind, "OPENHQM_AUTH__MTLS": json.dumps({"clients": clients})}

    def test_matrix(self) -> None:
        """A client has the roles of the name in its certificate; without one, or with another name, it gets 401."""
        issue = self.authority.issue
        billing = issue("billing", "DNS:x.example", "URI:spiffe://acme/billing", usage=[CLIENT])
        operator = issue("operator", subject="CN=operator,O=Acme", usage=[CLIENT])
        unknown = [
            None,
            issue("other", "URI:spiffe://acme/billing2", usage=[CLIENT]),
            issue("case", "URI:spiffe://acme/Billing", usage=[CLIENT]),
            issue("kind", "DNS:spiffe", "email:a@b.example", usage=[CLIENT]),
            issue("part", subject="CN=operator,O=Other", usage=[CLIENT]),
            issue("only-cn", subject="CN=operator", usage=[CLIENT]),
            issue("text", subject="CN=operator\\,O=Acme", usage=[CLIENT]),
        ]
        server = self.started({"client_ca": str(self.authority.ca)}, **self.auth())
        missing = self.ask(server, "GET", "/metrics")
        self.assertEqual(missing[0], 401)
        for method, route, needed in TABLE:
            target = target_of(route)
            if route in FINISHING:
                found = [self.ask(server, method, target, client)[0] for client in (None, billing, operator)]
                self.assertEqual((len(set(found)), found[0] >= 400), (1, True), route)
                continue
            for client in unknown:
                status, body = self.ask(server, method, target, client)
                self.assertEqual(status == 401, needed is not OPEN, (route, client))
                self.assertEqual(body == missing[1], needed is not OPEN, (route, client))
            for client, role in ((billing, "submit"), (operator, "admin")):
                status, _ = self.ask(server, method, target, client)
                if needed is OPEN or needed.value == role:
                    self.assertNotIn(status, (401, 403), (route, role))
                else:
                    self.assertEqual(status, 403, (route, role))
        # A credential in a field decides alone.
        self.assertEqual(self.ask(server, "POST", "/api/v1/submit", billing, {"Authorization": "Bearer x"})[0], 401)

    def test_not_verified(self) -> None:
        """A certificate of another CA, an expired one, and one for servers only end the handshake."""
        elsewhere = Authority(self.directory, "elsewhere")
        name = "URI:spiffe://acme/billing"
        server = self.started({"client_ca": str(self.authority.ca)}, **self.auth())
        for client in (
            elsewhere.issue("stranger", name, usage=[CLIENT]),
            self.authority.issue("expired", name, usage=[CLIENT], seconds=-60),
            self.authority.issue("for-servers", name, usage=[SERVER]),
        ):
            with self.assertRaises(OSError):
                self.ask(server, "GET", "/health/live", client)
        good = self.authority.issue("good", name, usage=[CLIENT])
        self.assertEqual(self.ask(server, "POST", "/api/v1/submit", good)[0], 202)

    def test_revoked(self) -> None:
        """A revoked certificate is not let in, and an open connection with it gets 401, without a restart.

        Without a list that is good now nothing of its issuer is let in.
        """
        name = "URI:spiffe://acme/billing"
        clients = [self.authority.issue(each, name, usage=[CLIENT]) for each in ("one", "other")]
        crl = self.authority.revoke()
        server = self.started({"client_ca": str(self.authority.ca), "client_crl": str(crl)}, **self.auth())
        connection = self.connection(server, clients[0])
        self.addCleanup(connection.close)

        def submit() -> int:
            connection.request("POST", "/api/v1/submit", b'{"payload": 1}', {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            return answer.status

        def is_let_in(client: tuple[Path, Path]) -> bool:
            try:
                return self.ask(server, "POST", "/api/v1/submit", client)[0] == 202
            except OSError:
                return False

        self.assertEqual(submit(), 202)
        self.assertTrue(all(is_let_in(each) for each in clients))
        self.authority.revoke(clients[0][0])
        server.until(lambda: submit() == 401, "the open connection goes on")
        server.until(lambda: not is_let_in(clients[0]), "it is let in")
        self.assertTrue(is_let_in(clients[1]))
        self.assertEqual(self.ask(server, "GET", "/health/live")[0], 200)
        self.authority.revoke(seconds=-60)
        server.until(lambda: not is_let_in(clients[1]), "the list has expired")
        self.authority.revoke()
        server.until(lambda: is_let_in(clients[0]), "the new list is not read")

    def test_expires_on_its_connection(self) -> None:
        """A connection does not outlive the certificate that it was opened with."""
        server = self.started({"client_ca": str(self.authority.ca)}, **self.auth())
        client = self.authority.issue("short", "URI:spiffe://acme/billing", usage=[CLIENT], seconds=4)
        connection = self.connection(server, client)
        self.addCleanup(connection.close)
        fields = {"Content-Type": "application/json"}

        def submit() -> int:
            connection.request("POST", "/api/v1/submit", b'{"payload": 1}', fields)
            answer = connection.getresponse()
            answer.read()
            return answer.status

        self.assertEqual(submit(), 202)
        server.until(lambda: submit() == 401, "it is good for ever")

    def test_any(self) -> None:
        """With ``any``, a token and a certificate are as good as each other."""
        (self.directory / "issuer.json").write_bytes(jwks(jwk(rsa_key(), "one")))
        issuer = {
            "issuer": ISSUER,
            "audiences": ["openhqm"],
            "key_files": [str(self.directory / "issuer.json")],
            "tenant": "acme",
            "roles": ["submit"],
        }
        billing = self.authority.issue("billing", "URI:spiffe://acme/billing", usage=[CLIENT])
        server = self.started(
            {"client_ca": str(self.authority.ca)},
            **self.auth("any"),
            OPENHQM_AUTH__JWT=json.dumps({"issuers": [issuer]}),
        )
        now = int(time.time())
        good = token(header={"alg": "RS256", "kid": "one"}, payload=claims(iat=now, exp=now + 300)).decode()
        submit = "/api/v1/submit"
        self.assertEqual(self.ask(server, "POST", submit, billing)[0], 202)
        self.assertEqual(self.ask(server, "POST", submit, None, {"Authorization": f"Bearer {good}"})[0], 202)
        self.assertEqual(self.ask(server, "POST", submit)[0], 401)
