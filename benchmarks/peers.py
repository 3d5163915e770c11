"""The alternatives that OpenHQM is compared with, and the yardstick of forwarding."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

from twisted.trial.unittest import SkipTest

from benchmarks import running
from benchmarks.polling import journeys
from benchmarks.table import Table
from tests.brokers import RabbitMQServer

SUBMIT = "/api/v1/submit"
_UVICORN = [sys.executable, "-m", "uvicorn", "--log-level", "error", "--port"]
_TASKIQ_WORKER = [sys.executable, "-m", "taskiq", "worker", "--workers", "1", "benchmarks.peer_taskiq:broker"]
CELERY_WORKER = [
    sys.executable,
    "-m",
    "celery",
    "-A",
    "benchmarks.peer_celery:celery",
    "worker",
    "--loglevel",
    "ERROR",
]
ON_RABBITMQ = "accept: OpenHQM, RabbitMQ, books in SQLite FULL"
WITH_REDIS = "accept: OpenHQM, RabbitMQ, books in Redis everysec"
RABBITMQ_BY_HAND = "accept: FastAPI + aio-pika"
ON_REDIS = "accept: OpenHQM, Redis everysec"
EMBEDDED = "accept: OpenHQM, SQLite FULL, beside Redis"
REDIS_BY_HAND = "accept: FastAPI + redis.asyncio"
_REDIS = ["redis-server", "--save", "", "--appendonly", "no", "--port"]
_EVERYSEC = ["redis-server", "--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]


@contextmanager
def empty_redis() -> Iterator[int]:
    """An empty Redis with the usual settings, by its port."""
    port = running.free_port()
    with (
        tempfile.TemporaryDirectory(prefix="openhqm-bench-", dir="/var/tmp") as directory,
        running.process([*_EVERYSEC, "--dir", directory, "--port", str(port)], port),
    ):
        yield port


def missing() -> str:
    """The names of what the peers need and this machine lacks."""
    names = ("fastapi", "uvicorn", "taskiq_redis", "celery", "httpx")
    found = [name for name in names if importlib.util.find_spec(name) is None]
    return ", ".join([*found, *(["redis-server"] if shutil.which("redis-server") is None else [])])


def peers(table: Table, seconds: float) -> None:
    """FastAPI with Taskiq, and with Celery, over Redis: accepting, and journeys with a running worker."""
    if missing():
        print(f"peers: left out, missing {missing()}")
        return
    redis, port = running.free_port(), running.free_port()
    url = f"redis://localhost:{redis}"
    with running.process([*_REDIS, str(redis)], redis):
        for name, app, worker, warm in (
            ("Taskiq", "benchmarks.peer_taskiq:app", _TASKIQ_WORKER, 3),
            ("Celery", "benchmarks.peer_celery:app", CELERY_WORKER, 5),
        ):
            with running.process([*_UVICORN, str(port), app], port, BENCH_REDIS=url):
                table.add(f"accept: FastAPI + {name} + Redis", running.wrk(port, SUBMIT, seconds), "requests/s")
            with running.process(["redis-cli", "-p", str(redis), "flushall"]):
                time.sleep(0.5)
            with (
                running.process(worker, BENCH_REDIS=url),
                running.process([*_UVICORN, str(port), app], port, BENCH_REDIS=url),
            ):
                time.sleep(warm)
                journeys_of(table, f"FastAPI + {name} + Redis", port, seconds, "/wait", "/stream")


def journeys_of(table: Table, whose: str, port: int, seconds: float, wait: str, stream: str) -> None:
    """Journeys from submitting to the answer, in the three ways that a caller can choose."""
    held = running.wrk(port, wait, seconds, headers={"Prefer": "wait=10"})
    table.add(f"journey: {whose}", held, "requests/s")
    streamed = running.wrk(port, stream, seconds, headers={"Accept": "text/event-stream"})
    table.add(f"journey by event stream: {whose}", streamed, "requests/s")
    polled, asked = asyncio.run(journeys(port, seconds))
    table.add(f"journey by polling: {whose}", polled, "requests/s")
    table.add(f"journey by polling, asked: {whose}", asked, "times")


def redis(table: Table, seconds: float, rounds: int) -> None:
    """Accepting on Redis (AOF everysec, the usual setting), compared with the embedded file and a program by hand."""
    if missing():
        print(f"redis: left out, missing {missing()}")
        return
    ours, peer = (running.free_port() for _ in range(2))
    found: dict[str, list[float]] = {}
    by_hand = [*_UVICORN, str(peer), "benchmarks.peer_redis:app"]
    for _ in range(rounds):
        # Each has a Redis of its own: one that has grown rewrites its file while another server is measured.
        with empty_redis() as server:
            settings = {"OPENHQM_QUEUE__TYPE": "redis", "OPENHQM_QUEUE__REDIS_URL": f"redis://localhost:{server}"}
            with running.openhqm(ours, "--role", "listener", **settings):
                time.sleep(1)
                found.setdefault(ON_REDIS, []).append(running.wrk(ours, SUBMIT, seconds))
        with running.openhqm(ours, "--role", "listener"):
            found.setdefault(EMBEDDED, []).append(running.wrk(ours, SUBMIT, seconds))
        with (
            empty_redis() as server,
            running.process(by_hand, peer, BENCH_REDIS=f"redis://localhost:{server}"),
        ):
            found.setdefault(REDIS_BY_HAND, []).append(running.wrk(peer, SUBMIT, seconds))
    for name, rates in found.items():
        table.add(name, statistics.median(rates), "requests/s")


def rabbitmq(table: Table, seconds: float, rounds: int) -> None:
    """Accepting on RabbitMQ with confirms: with the ledger in the embedded file, with it in Redis, and by hand without
    one."""
    names = ("aio_pika", "fastapi", "uvicorn")
    lacking = [name for name in names if importlib.util.find_spec(name) is None]
    try:
        server = RabbitMQServer()
    except SkipTest as error:
        lacking.append(str(error))
    if lacking:
        print(f"rabbitmq: left out, missing {', '.join(lacking)}")
        return
    ours, peer, books = (running.free_port() for _ in range(3))
    found: dict[str, list[float]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="openhqm-bench-", dir="/var/tmp") as directory,
        running.process([*_EVERYSEC, "--dir", directory, "--port", str(books)], books),
        closing(server.start()),
    ):
        settings = {
            "OPENHQM_QUEUE__TYPE": "rabbitmq",
            "OPENHQM_QUEUE__RABBITMQ_URL": server.url,
            "OPENHQM_CACHE__TYPE": "redis",
            "OPENHQM_CACHE__REDIS_URL": f"redis://localhost:{books}",
        }
        embedded = {name: value for name, value in settings.items() if "CACHE" not in name}
        by_hand = [*_UVICORN, str(peer), "benchmarks.peer_rabbitmq:app"]
        for _ in range(rounds):
            with running.openhqm(ours, "--role", "listener", **settings):
                time.sleep(1)
                found.setdefault(WITH_REDIS, []).append(running.wrk(ours, SUBMIT, seconds))
            with running.openhqm(ours, "--role", "listener", **embedded):
                time.sleep(1)
                found.setdefault(ON_RABBITMQ, []).append(running.wrk(ours, SUBMIT, seconds))
            with running.process(by_hand, peer, BENCH_RABBITMQ=server.url):
                found.setdefault(RABBITMQ_BY_HAND, []).append(running.wrk(peer, SUBMIT, seconds))
    for name, rates in found.items():
        table.add(name, statistics.median(rates), "requests/s")


def forward(table: Table, seconds: float) -> None:
    """HTTP -> queue -> HTTP -> the waiting client, 64 at once, compared with treq alone and with Taskiq."""
    target, port, redis, peer = (running.free_port() for _ in range(4))
    url = f"http://127.0.0.1:{target}/"
    with running.process([sys.executable, "-m", "benchmarks.yardsticks", "floor", str(target)], target):
        table.add("forward: treq alone", running.printed("benchmarks.treq_loop", url, str(seconds)), "requests/s")
        settings = {"ENABLED": "true", "DEFAULT_ENDPOINT": "target", "ENDPOINTS": json.dumps({"target": {"url": url}})}
        settings = {f"OPENHQM_PROXY__{name}": value for name, value in settings.items()}
        with running.openhqm(port, OPENHQM_WORKER__COUNT="64", OPENHQM_WORKER__BATCH_SIZE="64", **settings):
            rate = running.wrk(port, SUBMIT, seconds, headers={"Prefer": "wait=10"})
            table.add("forward: OpenHQM, SQLite FULL", rate, "requests/s")
        if missing():
            return
        there = {"BENCH_REDIS": f"redis://localhost:{redis}", "BENCH_TARGET": url}
        with (
            running.process([*_REDIS, str(redis)], redis),
            running.process([*_TASKIQ_WORKER], **there),
            running.process([*_UVICORN, str(peer), "benchmarks.peer_taskiq:app"], peer, **there),
        ):
            time.sleep(3)
            table.add("forward: FastAPI + Taskiq + httpx + Redis", running.wrk(peer, "/forward", seconds), "requests/s")
