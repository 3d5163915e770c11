"""A real ElasticMQ on a port of its own, with the limits of SQS, which tests share.

It runs on the jars in ``TEST_ELASTICMQ`` (``.ci/run`` gets them from Maven Central). It keeps messages in memory, so a
restart loses them, which SQS never does. Other differences are in docs/sqs.md.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Self

from twisted.trial.unittest import SkipTest

from tests.brokers import ServerProcess
from tests.servers import free_port

REGION = "eu-west-1"
ACCOUNT = "000000000000"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "s3cret", "AWS_EC2_METADATA_DISABLED": "true"}
JVM = ("-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Djava.awt.headless=true")


def find_elasticmq() -> Path:
    """Where the jars are; `SkipTest` where there are none, or no Java."""
    jars = Path(os.environ.get("TEST_ELASTICMQ", "/var/tmp/openhqm-elasticmq/lib"))
    if shutil.which("java") is not None and any(jars.glob("elasticmq-server_*.jar")):
        return jars
    reason = f"there is no ElasticMQ in {jars}, or no Java: see .ci/run"
    if os.environ.get("CI") == "true":
        raise AssertionError(reason)
    raise SkipTest(reason)


class SqsServer(ServerProcess):
    """A server on ``port`` that speaks as SQS does. ``command`` starts it in ``directory``."""

    port: int
    command: Sequence[str]

    @property
    def url(self) -> str:
        """For ``endpoint_url``."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Start it, and come back once it answers."""
        out = self.directory / "out"
        with out.open("wb") as to:
            self.process = subprocess.Popen(self.command, stdout=to, stderr=subprocess.STDOUT, cwd=self.directory)
        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                return self
            except OSError:
                pass  # not yet: asked again below
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(out.read_text())
            time.sleep(0.05)

    def client(self) -> Any:
        """boto3's own, for what an operator and other programs do."""
        return new_session().client("sqs", endpoint_url=self.url)


class Moto(SqsServer):
    """moto, the second opinion, where ``TEST_MOTO`` names its ``moto_server``."""

    def __init__(self) -> None:
        program = os.environ["TEST_MOTO"]
        self.directory = Path(tempfile.mkdtemp(prefix="openhqm-moto-"))
        self.port = free_port()
        self.command = [program, "-H", "127.0.0.1", "-p", str(self.port)]


class ElasticMQ(SqsServer):
    """``keeps``: it writes down what it has, so that a restart loses nothing."""

    def __init__(self, keeps: bool = False) -> None:
        self.jars = find_elasticmq()
        self.directory = Path(tempfile.mkdtemp(prefix="openhqm-sqs-"))
        self.port = free_port()
        self.config = self.directory / "elasticmq.conf"
        storage = f'uri = "jdbc:h2:{self.directory}/data;WRITE_DELAY=0"'
        self.config.write_text(
            f"""
            include classpath("application.conf")
            node-address {{ protocol = http, host = "127.0.0.1", port = {self.port}, context-path = "" }}
            rest-sqs {{ enabled = true, bind-port = {self.port}, bind-hostname = "127.0.0.1", sqs-limits = strict }}
            rest-stats {{ enabled = false }}
            generate-node-address = false
            queues-storage {{ enabled = false }}
            messages-storage {{ enabled = {str(keeps).lower()}, {storage} }}
            """
        )

    @property
    def command(self) -> Sequence[str]:  # type: ignore[override]
        """How it is started."""
        archive = self.jars.parent / "elasticmq.jsa"  # with the classes of an earlier start it starts in half the time
        shared = [f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []
        command = ["java", *JVM, *shared, f"-Dconfig.file={self.config}", "-cp", f"{self.jars}/*"]
        return [*command, "org.elasticmq.server.Main"]


@cache
def new_session() -> Any:
    """Credentials that ElasticMQ does not look at. One for all: it takes half a second to read what AWS has."""
    import boto3

    return boto3.session.Session(aws_access_key_id="tests", aws_secret_access_key="s3cret", region_name=REGION)


_shared: list[ElasticMQ] = []
_moto: list[Moto] = []


def shared_elasticmq() -> ElasticMQ:
    """One for all tests of this run, which takes seconds to start: each has queues of its own in it."""
    if not _shared:
        _shared.append(ElasticMQ().start())
        atexit.register(_shared[0].close)
    return _shared[0]


def shared_moto() -> Moto:
    """The same."""
    if not _moto:
        _moto.append(Moto().start())
        atexit.register(_moto[0].close)
    return _moto[0]
