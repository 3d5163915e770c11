"""Handlers in processes: their answers and errors, and what becomes of a request whose process ends."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openhqm.errors import Reject, RetryLater
from openhqm.messages import Request, Status, Submission
from openhqm.runtime.tracebacks import own_traceback
from openhqm.workers.handlers import Work
from openhqm.workers.process_messages import Call, Frames, Outcome, Progress, to_frame
from openhqm.workers.processes import HandlerProcesses
from openhqm.workers.replies import HandlerFailed, UnusableAnswer, result_of, with_result

JOBS = """
import asyncio, datetime, http, os, sys, threading, time
from twisted.internet.defer import Deferred, succeed
from openhqm.errors import Reject, RetryLater
from openhqm.workers.handlers import Response

def pid(work): return os.getpid()
def seen(work):
    return [work.payload, work.header("x-a"), work.metadata, work.attempt, work.max_attempts, work.time_left > 5,
            abs(work.deadline - work.time_left - time.time()) < 1, work.correlation_id]
def response(work): return Response(body=b"\\x00\\xff", status_code=http.HTTPStatus.CREATED, headers={"A": 5})
async def sleep(work):
    await asyncio.sleep(0.01)
    return "slept"
def fails(work): return {}["missing"]
def rejects(work): raise Reject("never", {"why": 1})
def rejects_plainly(work): raise Reject("never")
def later(work): raise RetryLater(datetime.timedelta(seconds=7), "busy", at_least="9")
def exits(work): sys.exit(3)
def ends(work): os._exit(5)
def killed(work): os.kill(os.getpid(), 9)
def hangs(work): time.sleep(600)
def waits(work):
    while not os.path.exists(os.path.join(os.path.dirname(__file__), "go")):
        time.sleep(0.01)
    return os.getpid()
def unusable(work): return object()
def large(work): return "x" * 20_000
def fields(work): return Response(body=b"", headers={f"X-{number}": "y" * 1000 for number in range(1000)})
def babbles(work):
    os.write(4, b"\\xff" * 100)
    time.sleep(600)
def deferred(work): return Deferred()
def forks(work):
    if os.fork() == 0:
        return "from the fork"
    os.wait()
    return "from the parent"
def progress(work):
    thread = threading.Thread(target=lambda: work.progress(percent=50))
    thread.start(); thread.join()
    work.progress(thing=object())
    work.progress(number=12345678901234567890123)
    return 1
def prints(work):
    print("a line of the handler", flush=True)
    sys.stdin.read()
    return 1
"""


class FramesTests(SynchronousTestCase):
    def test_pieces(self) -> None:
        """Messages arrive whole, however the pipe cuts them."""
        messages = [Call("a:b", b"{}", 1, 4, 2.5, 10), Progress(b"{}"), Outcome("completed", result=b"x" * 1000)] * 3
        stream = b"".join(map(to_frame, messages))
        for size in (1, 3, 7, 1000, len(stream)):
            found: list[Any] = []
            frames = Frames(found.append, 2000)
            for start in range(0, len(stream), size):
                frames.feed(stream[start : start + size])
            self.assertEqual(found, messages, size)

    def test_no_messages(self) -> None:
        """What is no message, or is larger than one may be, is a `ValueError`."""
        for bad in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x01\x01", b"\x00\x00\x07\xd1"):
            self.assertRaises(ValueError, Frames(lambda _: None, 2000).feed, bad)


class HandlerProcessesTests(TestCase):
    """`HandlerProcesses`"""

    timeout = 240

    def setUp(self) -> None:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        self.module = directory / "openhqm_test_process_jobs.py"
        self.module.write_text(JOBS)
        self.patch(sys, "path", [str(directory), *sys.path])
        self.processes = HandlerProcesses(reactor, 2, 10_000)
        self.addCleanup(self.processes.stop)
        self.reported: list[Any] = []

    def call(self, name: str, payload: bytes = b"1", **submission: Any) -> Deferred[Any]:
        request = Request("7f9c", 0.0, Submission(payload, **submission))
        clock = Clock()
        return self.processes.run(
            f"openhqm_test_process_jobs:{name}", Work(request, 2, 9.0, clock, self.reported.append, 4)
        )

    async def answer(self, name: str, payload: bytes = b"1", **submission: Any) -> Any:
        result = result_of(await self.call(name, payload, **submission))
        return with_result("7f9c", Status.COMPLETED, 0.0, 1, 0.0, **result)

    async def test_answers(self) -> None:
        """The handler sees what it sees elsewhere, and its answer is what it would be elsewhere."""
        payload = b'{"n":12345678901234567890123,"f":1.00000000000000000001}'
        reply = await self.answer("seen", payload, headers={"X-A": "b"}, metadata={"own": 2})
        self.assertEqual(reply.result, b'[%b,"b",{"own":2},2,4,true,true,"7f9c"]' % payload)
        reply = await self.answer("response")
        self.assertEqual((reply.body, reply.status_code, reply.headers), (b"\x00\xff", 201, {"A": "5"}))
        self.assertEqual((await self.answer("sleep")).result, b'"slept"')

    async def test_errors(self) -> None:
        """What it raises is raised here, with its text, its answer and its delays; the log gets its frames."""
        error: Any = await self.assertFailure(self.call("fails"), HandlerFailed)
        self.assertEqual(str(error), "KeyError: 'missing'")
        self.assertIn('return {}["missing"]', own_traceback(Failure(error)))
        error = await self.assertFailure(self.call("rejects"), Reject)
        self.assertEqual((str(error), bytes(error.answer.result)), ("never", b'{"why":1}'))
        self.assertIsNone((await self.assertFailure(self.call("rejects_plainly"), Reject)).answer)
        error = await self.assertFailure(self.call("later"), RetryLater)
        self.assertEqual((str(error), error.delay, error.at_least, error.answer), ("busy", 7.0, 9.0, None))
        for name, kind, words in (
            ("exits", HandlerFailed, "SystemExit: 3"),
            ("unusable", UnusableAnswer, "not JSON"),
            ("large", UnusableAnswer, "larger than"),
            ("fields", UnusableAnswer, "header fields"),
            ("babbles", HandlerFailed, "does not keep to the protocol"),
            ("deferred", HandlerFailed, "set worker.executor: reactor"),
            ("no_such_function", HandlerFailed, "has no callable named no_such_function"),
        ):
            self.assertIn(words, str(await self.assertFailure(self.call(name), kind)))

    async def test_reused(self) -> None:
        """A process takes one call after the other; calls at the same time have processes of their own."""
        first = await self.call("pid")
        second = await self.call("pid")
        self.assertEqual(bytes(first.result), bytes(second.result))
        pids = [int(bytes((await answer).result)) for answer in [self.call("pid"), self.call("pid")]]
        self.assertEqual(len(set(pids)), 2)
        self.assertNotIn(os.getpid(), pids)

    async def test_ends(self) -> None:
        """A process that ends is a failed attempt, which says how; the next call has another process."""
        for name, how in (("ends", "exit code 5"), ("killed", "signal 9")):
            error = await self.assertFailure(self.call(name), HandlerFailed)
            self.assertEqual(str(error), f"the process of the handler ended with {how}")
            self.assertEqual((await self.answer("sleep")).result, b'"slept"')

    async def test_cancelled(self) -> None:
        """Cancelling kills the process, and fires once that has ended."""
        process = await self.call("pid")
        pid = int(bytes(process.result))
        hanging = self.call("hangs")
        hanging.cancel()
        self.assertFalse(hanging.called)
        await self.assertFailure(hanging, CancelledError)
        self.assertRaises(ProcessLookupError, os.kill, pid, 0)
        self.assertEqual((await self.answer("sleep")).result, b'"slept"')

    async def test_signals(self) -> None:
        """The signals that a terminal or systemd sends to all processes of the service do not end it."""
        pid = int(bytes((await self.call("pid")).result))
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)
            self.assertEqual(int(bytes((await self.call("pid")).result)), pid)

    async def test_killed_while_idle(self) -> None:
        """An idle process that was killed is replaced."""
        pid = int(bytes((await self.call("pid")).result))
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while self.processes._idle and time.monotonic() < deadline:
            await deferLater(reactor, 0.01)
        self.assertNotEqual(int(bytes((await self.call("pid")).result)), pid)

    async def test_renewed(self) -> None:
        """After a renewal calls see the files as they are then. One that is under way ends as it began, and its process
        takes no other."""
        idle, busy = self.call("pid"), self.call("waits")
        old = int(bytes((await idle).result))
        self.module.write_text(f"{JOBS}\ndef pid(work): return -os.getpid()\n")
        self.processes.renew()
        new = int(bytes((await self.call("pid")).result))
        self.assertLess(new, 0)
        self.assertNotEqual(-new, old)
        (self.module.parent / "go").touch()
        waited = int(bytes((await busy).result))
        self.assertGreater(waited, 0)
        for _ in range(3):
            self.assertEqual(int(bytes((await self.call("pid")).result)), new)
        await self.gone(old)
        await self.gone(waited)

    async def gone(self, pid: int) -> None:
        """Wait until that process has ended."""
        deadline = time.monotonic() + 20
        while any(process.transport.pid == pid for process in self.processes._all) and time.monotonic() < deadline:
            await deferLater(reactor, 0.01)
        self.assertRaises(ProcessLookupError, os.kill, pid, 0)

    async def test_fork(self) -> None:
        """A process that the handler forks, and that returns, ends there and answers nothing."""
        self.assertEqual((await self.answer("forks")).result, b'"from the parent"')

    async def test_progress(self) -> None:
        """Progress is stored, from any thread; an event that is no JSON is left out."""
        await self.call("progress")
        self.assertEqual(self.reported, [{"percent": 50}, {"number": 12345678901234567890123}])

    async def test_streams(self) -> None:
        """What it prints goes where the output of this process goes, and its input is empty."""
        self.assertEqual((await self.answer("prints")).result, b"1")

    async def test_stop(self) -> None:
        """Stopping ends all processes, also those at work."""
        idle = int(bytes((await self.call("pid")).result))
        hanging = self.call("hangs")
        hanging.addErrback(lambda failure: failure.trap(CancelledError))
        await self.processes.stop()
        self.assertRaises(ProcessLookupError, os.kill, idle, 0)
        await hanging

    async def test_gateway_killed(self) -> None:
        """Where the gateway ends without a word, its pipe is closed, and the process ends in its work."""
        hanging = self.call("hangs")
        (process,) = self.processes._all
        process.transport.closeChildFD(3)
        error = await self.assertFailure(hanging, HandlerFailed)
        self.assertIn("exit code 0", str(error))
