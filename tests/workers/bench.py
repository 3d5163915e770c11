"""A consumer over a backend in memory or in a file, whose handlers and threads end when the test says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred

from openhqm.messages import Status, Submission
from openhqm.policy.fair_shares import Name, Share
from openhqm.policy.retry import RetryPolicy
from openhqm.runtime.threads import Uncancellable
from openhqm.testing import REQUESTS
from openhqm.workers.attempt import AttemptContext
from openhqm.workers.consumer import Consumer
from openhqm.workers.gate import Gate
from openhqm.workers.handlers import Handler, Handlers, Work
from openhqm.workers.metrics import WorkerMetrics
from tests.benches import ClockedBench, MemoryBench

POLICY = RetryPolicy(max_retries=3, base_seconds=1, factor=2, max_seconds=60, jitter=0)


# A killed process runs no cleanup. Neither may what a test leaves behind: garbage collection would close its coroutines
# and run their `finally` blocks. So it is kept.
_KILLED: list[Any] = []


class WorkerBench:
    """A consumer over ``backend``. ``threads`` holds one Deferred for each handler that runs in a thread."""

    def __init__(
        self,
        handler: Handler | None = None,
        *,
        backend: ClockedBench | None = None,
        by_operation: dict[str, Handler] | None = None,
        in_threads: bool = False,
        count: int = 2,
        batch: int = 10,
        timeout: float = 50.0,
        policy: RetryPolicy = POLICY,
        gate: Gate | None = None,
        probe: Callable[[], Deferred[Any]] | None = None,
        shares: Mapping[Name, Share] = MappingProxyType({}),
    ) -> None:
        self._shares = shares
        self.backend = backend or MemoryBench()
        self.registry = CollectorRegistry()
        self.threads: list[Uncancellable[Any]] = []
        self._settings = (handler, by_operation or {}, in_threads, count, batch, timeout, policy)
        self._gate, self._probe = gate, probe
        if gate is not None:
            gate.probe = probe
        self.start()

    def start(self) -> None:
        handler, by_operation, in_threads, count, batch, timeout, policy = self._settings
        self.consumer = Consumer(
            self.backend.queue,
            REQUESTS,
            AttemptContext(
                handlers=Handlers(self._in_thread if in_threads else handler, by_operation),
                policy=policy,
                timeout=timeout,
                clock=self.backend.clock,
                random=lambda: 0.5,
                from_thread=lambda call: call(),
                metrics=WorkerMetrics(CollectorRegistry()),
                gate=self._gate,
                probe=self._probe,
            ),
            self.backend.clock,
            count=count,
            batch=batch,
            shares=self._shares,
        )
        _KILLED.append((self.consumer, self.backend.queue, self.backend.store))
        self.consumer.start()
        self.backend.turn()

    def _in_thread(self, work: Work) -> Deferred[Any]:
        thread: Uncancellable[Any] = Uncancellable()
        self.threads.append(thread)
        return thread

    def crash(self) -> None:
        """Kill the process with all attempts in progress, and start a new one on the same backend."""
        self.backend.crash()
        self.start()

    def submit(self, payload: bytes = b"1", **fields: Any) -> str:
        accepted: list[Any] = []
        self.backend.queue.accept(Submission(payload, **fields), None).addCallback(accepted.append)
        self.backend.turn()
        correlation_id: str = accepted[0].correlation_id
        return correlation_id

    def pass_time(self, seconds: float) -> None:
        self.backend.pass_time(seconds)

    def record(self, correlation_id: str) -> Any:
        found: list[Any] = []
        self.backend.turn()
        self.backend.store.find(correlation_id).addCallback(found.append)
        return found[0]

    def status(self, correlation_id: str) -> Status:
        status: Status = self.record(correlation_id).status
        return status

    def events(self, correlation_id: str) -> list[Any]:
        found: list[Any] = []
        self.backend.turn()
        self.backend.store.history(correlation_id, 0).addCallback(found.extend)
        return found

    def types(self, correlation_id: str) -> list[str]:
        return [event.type for event in self.events(correlation_id)]

    def letters(self) -> list[Any]:
        found: list[Any] = []
        self.backend.queue.dead_letters(0, 100).addCallback(found.extend)
        return [letter for _, letter in found]

    def reasons(self) -> list[tuple[str, str]]:
        """The reasons of the dead letters, and the classes that the replies to their requests name."""
        return [(letter.reason, letter.reply.reason_class) for letter in self.letters()]


class ManualHandler:
    """A handler that returns a Deferred for each attempt, which the test fires."""

    def __init__(self) -> None:
        self.works: list[Work] = []
        self.answers: list[Deferred[Any]] = []
        self.cancelled = 0

    def __call__(self, work: Work) -> Deferred[Any]:
        self.works.append(work)
        answer: Deferred[Any] = Deferred(self._cancelled)
        self.answers.append(answer)
        return answer

    def _cancelled(self, answer: Deferred[Any]) -> None:
        self.cancelled += 1
