"""How the suite is split over processes: which modules run in one process of trial, and in which order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

BUNDLE_SECONDS = 40
"""Modules of one folder share a process up to here: starting one takes a second, and RabbitMQ in it five."""
SECONDS: Mapping[str, int] = {
    "tests.bridges.test_bad_input": 14,
    "tests.bridges.test_faults": 60,
    "tests.bridges.test_inbox": 10,
    "tests.bridges.test_offline": 12,
    "tests.bridges.test_replay": 40,
    "tests.bridges.test_reply_to": 6,
    "tests.brokered.test_forms": 240,
    "tests.brokered.test_kills": 4,
    "tests.brokered.test_promises": 40,
    "tests.brokered.test_window": 15,
    "tests.sqlite.test_journal": 4,
    "tests.command.test_dead": 8,
    "tests.command.test_main": 12,
    "tests.config.test_config": 5,
    "tests.config.test_guarantees": 5,
    "tests.config.test_endpoints": 12,
    "tests.custom.test_beanstalkd": 70,
    "tests.delivery.test_documents": 6,
    "tests.event_hubs.test_backend": 200,
    "tests.event_hubs.test_contract": 130,
    "tests.event_hubs.test_end_to_end": 20,
    "tests.fleet.test_fleet": 95,
    "tests.http1.test_channel": 10,
    "tests.ingress.test_access": 6,
    "tests.ingress.test_admin": 5,
    "tests.ingress.test_authentication": 12,
    "tests.ingress.test_batch_kills": 30,
    "tests.ingress.test_browser": 10,
    "tests.ingress.test_ending_streams": 20,
    "tests.ingress.test_admission": 45,
    "tests.ingress.test_idempotency_kills": 12,
    "tests.ingress.test_key_sets": 5,
    "tests.ingress.test_tls": 36,
    "tests.ingress.test_clients": 5,
    "tests.ingress.test_wrong_logins": 5,
    "tests.ingress.test_web_sockets": 70,
    "tests.ingress.test_as_it_came": 8,
    "tests.ingress.test_dead_letter_kills": 20,
    "tests.ingress.test_hooks": 6,
    "tests.ingress.test_http": 17,
    "tests.ingress.test_proxied": 5,
    "tests.ingress.test_rate_limiting": 5,
    "tests.ingress.test_sidecar": 18,
    "tests.ingress.test_sidecar_sockets": 20,
    "tests.ingress.test_slow_readers": 55,
    "tests.ingress.test_stream_clients": 12,
    "tests.ingress.test_stopped_process": 15,
    "tests.kafka.test_backend": 230,
    "tests.ingress.test_tenants": 80,
    "tests.kafka.test_bad_input": 15,
    "tests.kafka.test_broker": 45,
    "tests.kafka.test_contract": 130,
    "tests.kafka.test_credentials": 40,
    "tests.kafka.test_deploys": 40,
    "tests.kafka.test_foreign": 60,
    "tests.kafka.test_groups": 60,
    "tests.kafka.test_retention": 35,
    "tests.kafka.test_security": 35,
    "tests.mqtt.test_backend": 90,
    "tests.mqtt.test_broker": 30,
    "tests.mqtt.test_connecting": 6,
    "tests.mqtt.test_contract": 190,
    "tests.policy.test_json_text": 5,
    "tests.policy.test_schemas": 4,
    "tests.pubsub.test_backend": 200,
    "tests.pubsub.test_contract": 110,
    "tests.pubsub.test_faults": 15,
    "tests.pubsub.test_foreign": 45,
    "tests.queue.test_chain_kills": 42,
    "tests.queue.test_follow_up_kills": 45,
    "tests.queue.test_many_at_once": 6,
    "tests.queue.test_orphans": 9,
    "tests.queue.test_promises": 15,
    "tests.rabbitmq.test_backend": 400,
    "tests.rabbitmq.test_broker": 60,
    "tests.rabbitmq.test_connecting": 20,
    "tests.rabbitmq.test_contract": 70,
    "tests.rabbitmq.test_listeners_and_workers": 40,
    "tests.rabbitmq.test_lost_messages": 87,
    "tests.rabbitmq.test_outages": 60,
    "tests.redis.test_connecting": 20,
    "tests.redis.test_contract": 15,
    "tests.redis.test_counts": 10,
    "tests.redis.test_sidecar_outage": 10,
    "tests.redis.test_ending_log": 25,
    "tests.redis.test_ending_streams": 40,
    "tests.redis.test_foreign": 6,
    "tests.redis.test_intake": 14,
    "tests.redis.test_listening": 6,
    "tests.redis.test_outages": 60,
    "tests.redis.test_rate_limits": 8,
    "tests.redis.test_recovery": 6,
    "tests.redis.test_roles": 14,
    "tests.runtime.test_log_writer": 16,
    "tests.runtime.test_proxy_protocol": 13,
    "tests.sqs.test_backend": 140,
    "tests.sqs.test_broker": 23,
    "tests.sqs.test_contract": 150,
    "tests.sqs.test_foreign": 11,
    "tests.sqs.test_redis_backend": 150,
    "tests.storeless.test_forms": 6,
    "tests.storeless.test_kills": 6,
    "tests.storeless.test_pubsub": 15,
    "tests.storeless.test_rabbitmq": 60,
    "tests.storeless.test_sqs": 50,
    "tests.test_callbacks": 40,
    "tests.test_canaries": 40,
    "tests.test_chains": 50,
    "tests.test_chart": 12,
    "tests.test_containers": 30,
    "tests.test_crash": 90,
    "tests.test_crash_brokers": 290,
    "tests.test_documentation": 110,
    "tests.test_examples": 25,
    "tests.test_extras": 5,
    "tests.test_deploying": 6,
    "tests.test_draining": 40,
    "tests.test_finishing": 7,
    "tests.test_layers": 6,
    "tests.test_over_brokers": 45,
    "tests.test_releasing": 6,
    "tests.test_rolling_update": 45,
    "tests.test_service": 72,
    "tests.test_site": 14,
    "tests.test_specification": 8,
    "tests.test_time_steps": 42,
    "tests.workers.test_pool": 6,
    "tests.workers.test_processes": 6,
    "tests.workers.test_serving_handlers": 20,
}
"""How long the modules take that take four seconds or more, measured on two cores. The order is all it decides."""
OTHERS = 1
"""How long every other module is assumed to take, in seconds."""
MOST_AGAIN = 12
"""Up to so many tests that failed beside others are run again alone. Where more fail, it was not the machine."""
_ALONE = re.compile(r"^ALONE = True$", re.MULTILINE)
_SUMMARY = re.compile(r"^(?:PASSED|FAILED)\b(.*)$", re.MULTILINE)
_FAILURES = re.compile(r"^={79}\n(\[(?:FAIL|ERROR|SUCCESS!\?!)\]\n.*?)(?=^[=-]{79}$|\Z)", re.MULTILINE | re.DOTALL)
_TEST = re.compile(r"^tests(?:\.\w+){3,}$", re.MULTILINE)
MOST_LINES = 40
"""A failure is repeated at the end of a run with its last lines, up to here: a test's name is the last of all."""


@dataclass(frozen=True)
class Module:
    """A module of tests: its dotted name, about how many seconds it takes, and whether it needs the machine alone.

    ``measured``: what it reaches is measured (`tests.measuring`).
    """

    name: str
    seconds: int
    alone: bool = False
    measured: bool = False


@dataclass(frozen=True)
class Counts:
    """How many tests had which outcome."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def find_modules(root: Path, seconds: Mapping[str, int] = SECONDS) -> list[Module]:
    """Every module that trial finds in the package at ``root``. A line ``ALONE = True`` in it asks for the machine."""
    found = []
    for path in sorted(root.rglob("test_*.py")):
        name = ".".join(path.relative_to(root.parent).with_suffix("").parts)
        alone = _ALONE.search(path.read_text(encoding="utf-8")) is not None
        found.append(Module(name, seconds.get(name, OTHERS), alone, measured=name not in seconds))
    return found


def bundle(modules: Iterable[Module], most: float = BUNDLE_SECONDS) -> list[list[Module]]:
    """``modules`` in groups, one for each process, and the group that takes longest first.

    Modules of different folders are never in one group, and those that are measured are in groups of their own. A group
    takes at most ``most`` seconds, unless a single module takes longer.
    """
    groups: list[list[Module]] = []
    for _, folder in groupby(sorted(modules, key=lambda module: (*_kind(module), module.name)), key=_kind):
        group: list[Module] = []
        for module in sorted(folder, key=lambda module: -module.seconds):
            if group and _seconds(group) + module.seconds > most:
                groups.append(group)
                group = []
            group.append(module)
        groups.append(group)
    return sorted(groups, key=_seconds, reverse=True)


def count(output: str, code: int) -> Counts:
    """What trial's summary says. A process that ends with a ``code`` other than 0 and names no failure failed once."""
    summaries = _SUMMARY.findall(output)
    numbers = {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", summaries[-1])} if summaries else {}
    failed = sum(numbers.get(kind, 0) for kind in ("failures", "errors", "unexpectedSuccesses"))
    passed = numbers.get("successes", 0) + numbers.get("expectedFailures", 0)
    return Counts(passed, failed or int(code != 0), numbers.get("skips", 0))


def find_failures(output: str) -> list[str]:
    """What trial prints about each failure, ``MOST_LINES`` lines of each: a traceback, and the names of its tests."""
    return ["\n".join(text.strip().splitlines()[-MOST_LINES:]) for text in _FAILURES.findall(output)]


def failed_tests(failures: Iterable[str]) -> list[str]:
    """The names of the tests that these failures are of, each once; none where one of them names no test."""
    names = [_TEST.findall(failure) for failure in failures]
    return list(dict.fromkeys(name for some in names for name in some)) if all(names) else []


def _kind(module: Module) -> tuple[str, bool]:
    return module.name.rpartition(".")[0], module.measured


def _seconds(group: list[Module]) -> int:
    return sum(module.seconds for module in group)
