# -*- test-case-name: tests.workers.test_processes -*-
"""Handlers in processes of their own: a crash is a failed attempt there, and a time-out can end them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection
from contextlib import suppress
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from openhqm.codec import encode_request
from openhqm.errors import Reject, RetryLater
from openhqm.policy.json_numbers import parse_json
from openhqm.runtime.deferreds import Stoppable, deferred
from openhqm.workers.handlers import Response, Work
from openhqm.workers.process_messages import (
    FROM_HANDLER,
    MOST_BESIDES,
    TO_HANDLER,
    Call,
    Frames,
    Outcome,
    Progress,
    to_frame,
)
from openhqm.workers.replies import HandlerFailed, UnusableAnswer

CHECK_SECONDS = 120.0
"""How long the handlers may take to be imported when they are checked."""


def check_importable(paths: Collection[str]) -> dict[str, str]:
    """What is wrong with the handlers at which of ``paths``. They are imported in another process; this one waits."""
    command = [*_command("check"), *paths]
    try:
        # The command is our own; the paths in it are the operator's.
        done = subprocess.run(  # noqa: S603
            command, env=_environment(), stdout=subprocess.PIPE, timeout=CHECK_SECONDS, check=False
        )
        wrong: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
        return wrong
    except subprocess.TimeoutExpired:
        return dict.fromkeys(paths, f"is not imported within {CHECK_SECONDS:g} s")
    except (ValueError, IndexError):
        return dict.fromkeys(paths, f"cannot be imported: the process that tried it ended with {done.returncode}")


class HandlerProcesses:
    """At most ``most`` processes that are at work; each takes one call after the other.

    Processes begin when they are needed. ``most_result`` is the largest answer in bytes.
    """

    def __init__(self, reactor: Any, most: int, most_result: int) -> None:
        self._reactor = reactor
        self._most = most
        self._most_result = most_result
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()
        self._current: set[_Process] = set()

    def run(self, path: str, work: Work) -> Deferred[Any]:
        """Call the handler at ``path``. Fires with its answer, or fails as it has failed; or with `HandlerFailed`
        where its process has ended. Cancelling it kills the process.
        """
        process = self._idle.pop() if self._idle else self._start()
        request = encode_request(work.request)
        call = Call(path, request, work.attempt, work.max_attempts, work.time_left, self._most_result)
        return process.call(call, work)

    def renew(self) -> None:
        """From now on each call goes to a process that has begun since. Calls under way end as they began."""
        self._current = set()
        idle, self._idle = self._idle, []
        for process in idle:
            process.kill()

    @deferred
    async def stop(self) -> None:
        """Kill all processes. Fires when they have ended."""
        ended = [process.ended for process in self._all]
        for process in list(self._all):
            process.kill()
        await DeferredList(ended)

    def _start(self) -> _Process:
        process = _Process(self._idle_again, self._gone, self._most_result + MOST_BESIDES)
        with open(os.devnull, "rb") as nothing:
            descriptors = {0: nothing.fileno(), 1: 1, 2: 2, TO_HANDLER: "w", FROM_HANDLER: "r"}
            self._reactor.spawnProcess(process, sys.executable, _command("main"), _environment(), childFDs=descriptors)
        self._all.add(process)
        self._current.add(process)
        return process

    def _idle_again(self, process: _Process) -> None:
        if process in self._current and len(self._idle) < self._most:
            self._idle.append(process)
        else:
            process.kill()

    def _gone(self, process: _Process) -> None:
        self._all.discard(process)
        self._current.discard(process)
        if process in self._idle:
            self._idle.remove(process)


class _Process(ProcessProtocol):
    """One process of handlers, which is at work on one call or idle."""

    transport: Any

    def __init__(self, idle_again: Any, gone: Any, most: int) -> None:
        self._idle_again = idle_again
        self._gone = gone
        self._frames = Frames(self._received, most)
        self._done: Deferred[Any] | None = None
        self._work: Work | None = None
        self._killed: Exception | None = None
        self.ended: Deferred[None] = Deferred()

    def call(self, call: Call, work: Work) -> Deferred[Any]:
        self._work = work
        done = self._done = Stoppable(self.kill)
        self.transport.writeToChild(TO_HANDLER, to_frame(call))
        return done

    def kill(self, reason: Exception | None = None) -> None:
        """Kill the process. Its call fails with ``reason``; None: it was cancelled."""
        self._killed = self._killed or reason or CancelledError()
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        try:
            self._frames.feed(data)
        except ValueError as error:  # the handler has written into the pipe
            self.kill(HandlerFailed(f"the process of the handler does not keep to the protocol: {error}"))

    def processEnded(self, reason: Failure) -> None:
        value: Any = reason.value
        how = f"signal {value.signal}" if getattr(value, "signal", None) else f"exit code {value.exitCode}"
        self._gone(self)
        if self._done is not None:
            error = HandlerFailed(f"the process of the handler ended with {how}")
            self._take().callback(Failure(self._killed or error))
        self.ended.callback(None)

    def _received(self, message: Any) -> None:
        if self._work is None:
            return  # a thread that the handler left behind reports
        if isinstance(message, Progress):
            self._work.progress(**parse_json(message.detail))
        elif isinstance(message, Outcome) and self._killed is None:
            done = self._take()
            self._idle_again(self)
            done.callback(_as_result(message))  # a Failure makes the Deferred fail

    def _take(self) -> Deferred[Any]:
        done, self._done, self._work = self._done, None, None
        assert done is not None, "a process is told one call at a time"
        return done


def _as_result(outcome: Outcome) -> object:
    """What the handler returned, or a Failure with what it raised."""
    response = None
    if outcome.result is not None or outcome.body is not None:
        result = None if outcome.result is None else msgspec.Raw(outcome.result)
        response = Response(result, outcome.body, outcome.status_code, outcome.headers)
    errors: dict[str, Exception] = {
        "rejected": Reject(outcome.error, response),
        "later": RetryLater(outcome.delay, outcome.error, response, at_least=outcome.at_least),
        "unusable": UnusableAnswer(outcome.error),
        "failed": HandlerFailed(outcome.error, outcome.traceback),
    }
    error = errors.get(outcome.kind)
    return response if error is None else Failure(error)


def _command(function: str) -> list[str]:
    return [sys.executable, "-c", f"from openhqm.workers.process_main import {function}; {function}()"]


def _environment() -> dict[str, str]:
    """That of this process, with its import path."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
