"""Promises 1 to 5 are kept, whatever happens in whatever order.

Queue, store and workers run as they are, on the embedded file and under a clock of the test's own; a process is
killed by forgetting everything that was not committed. What is known from outside (which ids were given out, which
endings were seen, which attempts were begun) is held against what the file says.
"""

from __future__ import annotations

import gc
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import OpenHQMError, Reject
from openhqm.messages import IdempotencyClaim, Priority, Status, Submission
from openhqm.testing import LEASE
from openhqm.workers.handlers import Response, Work
from tests import hypothesis_profile  # noqa: F401
from tests.benches import SqliteBench
from tests.workers.bench import ManualHandler, WorkerBench

LONGEST = 50.0
_PAST: list[Any] = []


class Promises(RuleBasedStateMachine):
    """One run of a process that is killed now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.handler = ManualHandler()
        self.bench = WorkerBench(self.handler, backend=SqliteBench(ttl=1e6), count=3, timeout=LONGEST)
        self.given: dict[str, int] = {}  # 202'd ids, with the number in their payload
        self.asked = 0  # submissions ever tried
        self.claims: dict[str, tuple[int, str | None]] = {}
        self.endings: dict[str, Any] = {}
        self.begun: list[Work] = []

    def teardown(self) -> None:
        try:
            self._everything_ends()
        finally:
            self.bench.backend.close()

    # What callers do

    @rule(
        priority=st.sampled_from(Priority),
        timeout=st.sampled_from([None, None, 5.0, 200.0]),
        delay=st.sampled_from([None, None, 3.0]),
        learned=st.booleans(),
    )
    def submit(self, priority: Priority, timeout: float | None, delay: float | None, learned: bool) -> None:
        """``learned``: the caller lives to see the answer."""
        self.asked += 1
        not_before = None if delay is None else self.bench.backend.now() + delay
        submission = Submission(b"%d" % self.asked, priority=priority, timeout=timeout, not_before=not_before)
        self._accept(submission, None, self.asked, learned)

    @rule(key=st.sampled_from("abc"), learned=st.booleans())
    def submit_with_key(self, key: str, learned: bool) -> None:
        if key not in self.claims:
            self.asked += 1
            self.claims[key] = (self.asked, None)
        number, first = self.claims[key]
        accepted = self._accept(Submission(b"%d" % number), IdempotencyClaim(key, key.encode()), number, learned)
        if accepted is not None:
            assert first in (None, accepted), "one key, two ids"
            self.claims[key] = (number, accepted)

    def _accept(self, submission: Submission, claim: IdempotencyClaim | None, number: int, learned: bool) -> str | None:
        accepted: list[Any] = []
        self.bench.backend.queue.accept(submission, claim).addCallback(accepted.append)
        if not learned:
            return None
        self.bench.backend.turn()
        correlation_id: str = accepted[0].correlation_id
        self.given[correlation_id] = number
        return correlation_id

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        correlation_id = data.draw(st.sampled_from(list(self.given)))
        self.bench.backend.store.cancel(correlation_id).addErrback(lambda failure: failure.trap(OpenHQMError))
        self.bench.backend.turn()

    # What handlers do

    @precondition(lambda self: any(not answer.called for answer in self.handler.answers))
    @rule(data=st.data(), how=st.sampled_from(["answer", "answer", "raise", "reject", "nonsense", "report"]))
    def handle(self, data: st.DataObject, how: str) -> None:
        open_answers = [index for index, answer in enumerate(self.handler.answers) if not answer.called]
        index = data.draw(st.sampled_from(open_answers))
        work, answer = self.handler.works[index], self.handler.answers[index]
        if how == "answer":
            answer.callback(Response(result=work.payload))
        elif how == "raise":
            answer.errback(ValueError("no luck"))
        elif how == "reject":
            answer.errback(Reject("never"))
        elif how == "nonsense":
            answer.callback(object())
        else:
            work.progress(percent=1)
        self.bench.backend.turn()

    # What happens to the process

    @rule(seconds=st.sampled_from([0.5, 2.0, 10.0, LEASE + 1]))
    def time_passes(self, seconds: float) -> None:
        self.bench.pass_time(seconds)

    @rule(moment=st.sampled_from(["", "before", "after"]))
    def killed(self, moment: str) -> None:
        """Between two turns; or while a commit is on its way, before or after it has reached the file."""
        self.bench.backend.stall = moment  # type: ignore[attr-defined]
        self.bench.backend.turn()
        self._crash()

    @rule()
    def stopped(self) -> None:
        """In order: the requests in work are released."""
        self.bench.consumer.stop(1)
        self.bench.pass_time(4)
        self._crash()

    def _crash(self) -> None:
        # What ran in the old process is gone: nothing of it may run on, not even its clearing up.
        _PAST.append(self.handler.answers)
        self.handler.answers = []
        self.begun += self.handler.works
        self.handler.works = []
        self.bench.crash()

    # What must be true

    @invariant()
    def every_id_is_known(self) -> None:
        """Promises 1 and 2: what was accepted is known, and it is what was submitted."""
        for correlation_id in self.given:
            self.bench.record(correlation_id)

    @invariant()
    def one_ending(self) -> None:
        """Promise 3: an ending stays, and the result is the right one."""
        for correlation_id, number in self.given.items():
            record = self.bench.record(correlation_id)
            if correlation_id in self.endings:
                assert record.reply == self.endings[correlation_id], "an ending changed"
            if record.reply is not None:
                self.endings[correlation_id] = record.reply
                if record.status is Status.COMPLETED:
                    assert record.reply.result == b"%d" % number, "another request's result"

    @invariant()
    def attempts_are_counted(self) -> None:
        """Promise 4: no attempt has the number of an earlier one, unless that was released; none exceeds four."""
        for work in self.begun + self.handler.works:
            assert 1 <= work.attempt <= 4

    def _everything_ends(self) -> None:
        """Promises 3 and 5: left in peace, each request ends, once, and what failed is among the dead letters."""
        for _ in range(30):
            for index, answer in enumerate(self.handler.answers):
                if not answer.called:
                    answer.callback(Response(result=self.handler.works[index].payload))
            self.bench.pass_time(10)
        self.every_id_is_known()
        self.one_ending()
        dead_lettered = {letter.request.correlation_id for letter in self.bench.letters()}
        for correlation_id in self.given:
            record = self.bench.record(correlation_id)
            assert record.status.ended, f"{correlation_id} never ended: {record}"
            types = self.bench.types(correlation_id)
            endings = [type for type in types if type in ("completed", "failed", "timeout", "cancelled")]
            assert len(endings) == 1 and types[-1] == endings[0], types
            if record.status is Status.FAILED:
                assert correlation_id in dead_lettered, "failed, and not among the dead letters"
            if record.status in (Status.COMPLETED, Status.CANCELLED):
                assert correlation_id not in dead_lettered
        seen = {int(work.payload_text) for work in self.begun + self.handler.works}
        assert seen <= set(range(1, self.asked + 1)), "a request that was never submitted"
        depths: list[Any] = []
        self.bench.backend.queue.depth("contract-requests").addCallback(depths.append)
        (depth,) = depths
        assert (depth.delayed, depth.in_flight) == (0, 0), depth


class PromisesTests(SynchronousTestCase):
    """The state machine above, in many random runs"""

    def test_promises(self) -> None:
        """No order of submitting, handling, cancelling, waiting and crashing breaks a promise."""
        run_state_machine_as_test(Promises, settings=settings(max_examples=200, stateful_step_count=40))
        # Handlers that failed were logged; killed processes left coroutines that will never finish.
        gc.collect()
        self.flushLoggedErrors()
