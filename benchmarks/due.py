"""Many follow-ups that fall due in one second: what the door does meanwhile, and what it takes in memory.

    python -m benchmarks.due [--count 100000] [--backend sqlite|redis|rabbitmq|rabbitmq-redis]

A listener accepts so many requests in batches, each with a callback and a deadline, and all deadlines pass in one
second. No worker runs: each request ends by its deadline, and its callback then waits to be sent. ``rabbitmq`` has its
ledger in the file, ``rabbitmq-redis`` in Redis. In the meantime callers submit and ask for states at a fixed rate.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from urllib.error import HTTPError
from urllib.request import urlopen

from benchmarks import running
from benchmarks.open_model import measure, percentile
from benchmarks.table import Table
from tests.brokers import RabbitMQServer, RedisServer

CALLBACK = "http://127.0.0.1:9000/"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # the one in the docs
RATE = 100  # new requests in a second, and as many looks at a state
IN_A_BATCH = 200
FILLED = 2000.0  # in a second, that the deadline leaves time for
WINDOW = 2.0
PATIENCE = 1800.0
_PLAIN = (
    b"POST /api/v1/submit HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    % (len(running.BODY), running.BODY)
)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=100_000)
    options.add_argument("--rate", type=float, default=FILLED, help="how many are accepted in a second, at least")
    options.add_argument("--backend", choices=("sqlite", "redis", "rabbitmq", "rabbitmq-redis"), default="redis")
    chosen = options.parse_args()
    with _backend(chosen.backend) as settings:
        due(Table(), chosen.count, chosen.rate, settings)


@contextmanager
def _backend(name: str) -> Iterator[dict[str, str]]:
    with ExitStack() as stack:
        settings = {}
        if "redis" in name:
            redis = RedisServer().start()
            stack.callback(redis.close)
            settings["OPENHQM_QUEUE__REDIS_URL"] = settings["OPENHQM_CACHE__REDIS_URL"] = redis.url
            settings["OPENHQM_QUEUE__TYPE"] = settings["OPENHQM_CACHE__TYPE"] = "redis"
        if "rabbitmq" in name:
            broker = RabbitMQServer().start()
            stack.callback(broker.close)
            settings |= {"OPENHQM_QUEUE__TYPE": "rabbitmq", "OPENHQM_QUEUE__RABBITMQ_URL": broker.url}
        if name == "redis":
            del settings["OPENHQM_CACHE__REDIS_URL"], settings["OPENHQM_CACHE__TYPE"]
        if name == "rabbitmq-redis":
            del settings["OPENHQM_QUEUE__REDIS_URL"]
        yield settings


def due(table: Table, count: int, rate: float, settings: Mapping[str, str]) -> None:
    """Accept ``count`` requests whose deadlines pass in one second, and watch their callbacks fall due."""
    port = running.free_port()
    callbacks = json.dumps({"secrets": [SECRET], "allow": [CALLBACK.rstrip("/")]})
    with running.openhqm(port, "--role", "listener", OPENHQM_CALLBACKS=callbacks, **settings) as listener:
        _ready(port)
        began = time.time()
        deadline = began + count / rate + 10
        first = _fill(port, count, deadline)
        table.add("due: accepted", count / (time.time() - began), "requests/s")
        look = b"GET /api/v1/status/%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % first.encode()
        state: Callable[[bytes], bool] = lambda answer: answer.startswith(b"HTTP/1.1 200")  # noqa: E731
        alone = _Latencies(port, look, state)
        alone.take(max(WINDOW, deadline - time.time() - WINDOW))
        assert time.time() < deadline, "their deadline passed before all were accepted: name a lower --rate"
        assert _callbacks(port) == 0
        table.add("due: resident memory before", running.resident(listener.pid), "MiB")
        time.sleep(max(0.0, deadline - time.time()))
        beside, most = _Latencies(port, look, state), 0.0
        while (found := _callbacks(port)) < count:
            assert time.time() < deadline + PATIENCE, f"{found} of {count} are due"
            beside.take(WINDOW)
            most = max(most, running.resident(listener.pid))
        took = time.time() - deadline
        # Over a broker an entry counts twice while it is published, and the depth of a channel is that of a moment ago.
        before = 0
        while (found := _callbacks(port)) != before:
            before = found
            beside.take(WINDOW)
        assert found == count, f"{count} requests have {found} callbacks"
        table.add("due: resident memory at most", most, "MiB")
    table.add("due: made due", count / took, "follow-ups/s")
    for name, latencies in (("without", alone), ("beside", beside)):
        table.add(f"due: p99 of accepting {name}", percentile(sorted(latencies.accepting), 0.99), "ms")
        table.add(f"due: p99 of a state {name}", percentile(sorted(latencies.states), 0.99), "ms")


class _Latencies:
    """What callers wait for at a fixed rate: for a 202, and for a state."""

    def __init__(self, port: int, look: bytes, good: Callable[[bytes], bool]) -> None:
        self._port = port
        self._look = look
        self._good = good
        self.accepting: list[float] = []
        self.states: list[float] = []

    def take(self, seconds: float) -> None:
        """Measure for so long."""
        asyncio.run(self._take(seconds))

    async def _take(self, seconds: float) -> None:
        accepted, found = await asyncio.gather(
            measure(self._port, _PLAIN, lambda answer: answer.startswith(b"HTTP/1.1 202"), RATE, seconds),
            measure(self._port, self._look, self._good, RATE, seconds),
        )
        self.accepting += accepted
        self.states += found


def _fill(port: int, count: int, deadline: float) -> str:
    """Accept ``count`` requests that end at ``deadline``; the id of the first one."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    first = ""
    for sent in range(0, count, IN_A_BATCH):
        some = min(IN_A_BATCH, count - sent)
        metadata = {"callback_url": CALLBACK, "timeout": round(deadline - time.time(), 3)}
        line = json.dumps({**json.loads(running.BODY), "metadata": metadata}).encode() + b"\n"
        connection.request("POST", "/api/v1/batch", line * some, {"Content-Type": "application/x-ndjson"})
        answer = json.loads(connection.getresponse().read())
        assert len(answer.get("accepted", ())) == some, str(answer)[:1000]
        first = first or answer["accepted"][0]["correlation_id"]
    connection.close()
    return first


def _ready(port: int) -> None:
    while True:
        try:
            return urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=60).close()
        except HTTPError:
            time.sleep(0.1)


def _callbacks(port: int) -> int:
    """How many callbacks wait to be sent."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        text = answer.read()
    found = re.findall(rb'openhqm_queue_depth\{queue="[^"]*callback[^"]*",state="(?:ready|delayed)"\} (\S+)', text)
    return int(sum(map(float, found)))


if __name__ == "__main__":
    main()
