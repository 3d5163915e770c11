"""What Pub/Sub costs: the adapter alone, and a whole gateway at a fixed rate and at rest, on Google's in-memory server.

    python -m benchmarks.pubsub [--messages 5000] [--rate 200] [--seconds 20]

Needs the program that ``.ci/run`` builds. The server shares the machine, and is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from benchmarks.open_model import measure, percentile
from tests.pubsub.server import PROJECT, PubSubServer
from tests.servers import Server

BODY = bytes(256)
TICKS = os.sysconf("SC_CLK_TCK")
SUBMIT = b'{"payload": {"a": 1}}'


def cpu() -> float:
    """The seconds of CPU that this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def cpu_of(pid: int) -> float:
    """The seconds of CPU that a process has used, with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def mebibytes(pid: int) -> float:
    """The resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Counting:
    """Acknowledges each of ``count`` deliveries; ``done`` fires with the last acknowledgement."""

    def __init__(self, count: int) -> None:
        self.done: Deferred[None] = Deferred()
        self._left = count

    def received(self, delivery: Any) -> None:
        """A message has come."""
        delivery.ack().addCallback(self._acked)

    def lost(self, reason: str) -> None:
        """The channel is gone."""
        self.done.errback(RuntimeError(reason))

    def _acked(self, result: object) -> None:
        self._left -= 1
        if not self._left:
            self.done.callback(None)


def pubsub_broker(server: PubSubServer) -> Any:
    """The adapter."""
    from twisted.internet import reactor

    from openhqm.pubsub.broker import Address, PubSubBroker
    from openhqm.pubsub.subscriptions import Wanted

    address = Address(PROJECT, f"http://{server.host}", emulator=True)
    return PubSubBroker(address, reactor, random.random, Wanted(60.0), seconds=30.0)


def adapter(broker: Any, count: int) -> None:
    """Publish ``count`` messages, 512 at a time in calls of one, and consume them, each acknowledged by itself."""
    from twisted.internet import reactor

    from openhqm.interfaces import Message

    async def publish(number: int) -> None:
        for _ in range(number):
            (outcome,) = await broker.publish("bench", [Message(BODY, {"a": "b"})])
            assert outcome is None, outcome

    async def run() -> None:
        await broker.start()
        await broker.when_probed()
        await broker.ensure("bench")
        published = 0
        for at_once in (1, 64, 512):
            each = max(1, (count if at_once > 1 else min(count, 1000)) // at_once)
            began, used = time.perf_counter(), cpu()
            await gatherResults([Deferred.fromCoroutine(publish(each)) for _ in range(at_once)])
            _say(f"publish, {at_once} at once", each * at_once, time.perf_counter() - began, cpu() - used)
            published += each * at_once
        counting = Counting(published)
        began, used = time.perf_counter(), cpu()
        broker.consume("bench", counting).credit(1000)
        await counting.done
        _say("receive and acknowledge", published, time.perf_counter() - began, cpu() - used)
        await broker.stop()

    running = Deferred.fromCoroutine(run())
    running.addErrback(lambda failure: print(failure.getTraceback(), file=sys.stderr))
    running.addBoth(lambda result: reactor.stop())  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]


def _say(what: str, count: int, seconds: float, used: float) -> None:
    print(f"| {what} | {count / seconds:,.0f}/s | {1e6 * used / count:.0f} us |", flush=True)


def start(directory: Path, **settings: str) -> Server:
    """A gateway."""
    directory.mkdir()
    made = Server(directory, **{"OPENHQM_WORKER__HANDLER": "echo", **settings})
    made.start()
    return made


def gateway(product: str, on_product: dict[str, str], rate: int, seconds: int) -> None:
    """One with its queue on the product beside a plain one: accepting, reading the answer, at rest."""
    with tempfile.TemporaryDirectory() as root:
        for name, settings in (("plain", {}), (product, on_product)):
            made = start(Path(root) / name, **settings)
            assert made.process is not None
            pid = made.process.pid
            made.response(made.submit({"a": 1}))
            time.sleep(3)
            memory, used = mebibytes(pid), cpu_of(pid)
            time.sleep(seconds)
            rest = 100 * (cpu_of(pid) - used) / seconds
            print(f"| {name}: at rest | {memory:.1f} MiB | {rest:.2f} % of a core |", flush=True)
            request = b"POST /api/v1/submit HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            request += b"Content-Length: %d\r\n\r\n%b" % (len(SUBMIT), SUBMIT)
            used = cpu_of(pid)
            taken = asyncio.run(measure(made.port, request, lambda answer: b" 202 " in answer[:20], rate, seconds))
            spent = 1e6 * (cpu_of(pid) - used) / len(taken)
            p50, p99 = (percentile(taken, each) for each in (0.5, 0.99))
            print(f"| {name}: accept at {rate}/s | p50 {p50:.1f} ms, p99 {p99:.1f} ms | {spent:.0f} us |", flush=True)
            print(f"| {name}: after {len(taken)} requests | {mebibytes(pid):.1f} MiB | |", flush=True)
            reads = []
            for _ in range(200):
                began = time.perf_counter()
                made.response(made.submit({"a": 1}))
                reads.append(time.perf_counter() - began)
            p50, p99 = (percentile(sorted(reads), each) for each in (0.5, 0.99))
            print(f"| {name}: submitted, worked on and read | p50 {p50:.1f} ms, p99 {p99:.1f} ms | |", flush=True)
            made.stop()


def options_of(program: str) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}")
    parser.add_argument("--messages", type=int, default=5_000)
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=20)
    return parser.parse_args()


def main() -> None:
    options = options_of("benchmarks.pubsub")
    server = PubSubServer().start()
    ours = json.dumps({"project_id": PROJECT, "emulator_host": server.host})
    settings = {"OPENHQM_QUEUE__TYPE": "gcp_pubsub", "OPENHQM_QUEUE__CONNECTION__GCP_PUBSUB": ours}
    try:
        gateway("pubsub", settings, options.rate, options.seconds)
        adapter(pubsub_broker(server), options.messages)
    finally:
        server.close()


if __name__ == "__main__":
    main()
