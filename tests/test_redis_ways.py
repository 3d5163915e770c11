"""Ways to a Redis: TLS, ACL users, Sentinel; with real servers."""

from __future__ import annotations

import datetime
import socket
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.trial.unittest import SkipTest

from openhqm.messages import Status, Submission
from tests.brokers import RedisServer, find_redis
from tests.servers import free_port
from tests.test_redis import Real


def certify(directory: Path) -> tuple[Path, Path]:
    """A certificate for localhost that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "cert.pem", directory / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


class WaysTests(Real):
    async def test_acl_user(self) -> None:
        """A user with the rights that docs/redis.md names can do everything that is needed."""
        server = await self.server()
        rights = ("+@all", "-@admin", "+config|get", "+info")
        server.say("ACL", "SETUSER", "gateway", "on", ">p@ss", "~t:*", "&*", *rights)
        one = await self.instance(f"redis://gateway:p%40ss@127.0.0.1:{server.port}/0")
        self.assertIsNone(one.queue.trouble)
        accepted = await one.queue.accept(Submission(b"1"), None)
        (delivery,) = await one.queue.receive("contract-requests", 1)
        await delivery.settle(self.reply(delivery))
        self.assertEqual((await one.store.find(accepted.correlation_id)).status, Status.COMPLETED)
        self.assertEqual(one.queue.warnings, ())

    async def test_acl_user_without_config(self) -> None:
        """Where CONFIG is refused, as by managed services, it works and says what it does not know."""
        server = await self.server()
        server.say("ACL", "SETUSER", "gateway", "on", ">p", "~t:*", "&*", "+@all", "-@admin", "+info")
        one = await self.instance(f"redis://gateway:p@127.0.0.1:{server.port}/0")
        await one.queue.accept(Submission(b"1"), None)
        self.assertIn("could not be read", " ".join(one.queue.warnings))

    async def test_tls(self) -> None:
        """TLS to a server whose authority is known; refused where it is not, or where the name is another."""
        server = RedisServer()
        self.addCleanup(server.close)
        certificate, key = certify(server.directory)
        port = free_port()
        server.settings |= {
            "tls-port": str(port),
            "tls-cert-file": str(certificate),
            "tls-key-file": str(key),
            "tls-auth-clients": "no",
        }
        try:
            server.start()
        except AssertionError as error:
            raise SkipTest("this redis-server has no TLS") from error
        known = await self.instance(f"rediss://localhost:{port}/0?ca={certificate}")
        self.assertIsNone(known.queue.trouble)
        await known.queue.accept(Submission(b"1"), None)
        for url in (f"rediss://localhost:{port}/0", f"rediss://127.0.0.1:{port}/0?ca={certificate}"):
            other = await self.instance(url)
            self.assertIn("cannot use", other.queue.trouble or "")
            await self.refused(other.queue.accept(Submission(b"2"), None))

    async def test_sentinel(self) -> None:
        """The master that Sentinel names is used, and after a failover the next one."""
        first, second = await self.server(), await self.server()
        second.say("REPLICAOF", "127.0.0.1", str(first.port))
        port = free_port()
        config = first.directory / "sentinel.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {first.directory}\nsentinel monitor one 127.0.0.1 {first.port} 1\n"
            "sentinel down-after-milliseconds one 500\nsentinel failover-timeout one 3000\n"
        )
        self.start_sentinel(config)
        one = await self.instance(f"redis://127.0.0.1:{port}/0?sentinel=one")
        accepted = await self.patiently(lambda: one.queue.accept(Submission(b"1"), None))
        known = f"slave0:ip=127.0.0.1,port={second.port},state=online"
        await self.until(lambda: known.encode() in first.say("INFO", "replication"), "no replica")
        await self.until(lambda: b"slaves=1" in self.ask_sentinel(port), "Sentinel knows no replica")
        await one.redis.command("WAIT", 1, 1000)
        first.kill()
        await self.patiently(lambda: one.queue.accept(Submission(b"2"), None))
        self.assertEqual((await one.store.find(accepted.correlation_id)).status, Status.PENDING)

    def start_sentinel(self, config: Path) -> None:
        sentinel = subprocess.Popen([find_redis(), str(config), "--sentinel"], stdout=subprocess.DEVNULL)
        self.addCleanup(sentinel.wait)
        self.addCleanup(sentinel.kill)

    def ask_sentinel(self, port: int) -> bytes:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(b"INFO sentinel\r\n")
                return connection.recv(65536)
        except OSError:
            return b""
