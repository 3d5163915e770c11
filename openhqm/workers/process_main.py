# -*- test-case-name: tests.workers.test_processes -*-
"""The process in which handlers run: it takes one call after the other, and writes down what came of each."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from openhqm.codec import decode_request
from openhqm.errors import Reject, RetryLater
from openhqm.messages import Reply, Status
from openhqm.runtime.dotted import load_callable
from openhqm.runtime.forks import in_this_process, keep_from_forks
from openhqm.runtime.steady_time import SteadyTime
from openhqm.workers.handlers import Work
from openhqm.workers.process_messages import (
    FROM_HANDLER,
    MOST_BESIDES,
    TO_HANDLER,
    Call,
    Outcome,
    Progress,
    read_frame,
    to_frame,
)
from openhqm.workers.replies import UnusableAnswer, asked_delays, blank, describe, failed, result_of

_steady_time = SteadyTime(time.time)
_clock: Any = SimpleNamespace(seconds=_steady_time.__call__, steady_time=_steady_time)
_load = cache(load_callable)


def main() -> None:
    """Take calls until the pipe is closed: then the gateway has ended, and so does this process, whatever it does."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # Both go to all processes of a terminal or a service: the gateway says when this one ends. Programs that a
        # handler starts do not inherit a function, as they would SIG_IGN.
        signal.signal(number, lambda *_: None)
    for descriptor in (TO_HANDLER, FROM_HANDLER):
        os.set_inheritable(descriptor, False)
    keep_from_forks((TO_HANDLER, FROM_HANDLER))
    calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(calls,), daemon=True).start()
    with os.fdopen(FROM_HANDLER, "wb") as answers, asyncio.Runner() as runner:
        lock = threading.Lock()  # progress may be reported by any thread

        def write(message: Progress | Outcome) -> None:
            with lock:
                answers.write(to_frame(message))
                answers.flush()

        while True:
            write(_bounded(_outcome(calls.get(), write, runner)))


def check() -> None:
    """Import the handlers at the paths in the arguments, and print as JSON what is wrong with which."""
    wrong = {}
    for path in sys.argv[1:]:
        try:
            load_callable(path)
        except ValueError as error:
            wrong[path] = str(error)
    print(f"\n{json.dumps(wrong)}", flush=True)  # in a line of its own: the modules may print, too
    os._exit(0)  # threads that they have started would keep this process


def _read(calls: queue.SimpleQueue[Call]) -> None:
    with os.fdopen(TO_HANDLER, "rb") as pipe:
        while True:
            try:
                calls.put(read_frame(pipe.read))
            except (EOFError, OSError):
                os._exit(0)


def _outcome(call: Call, write: Callable[[Progress], None], runner: asyncio.Runner) -> Outcome:
    request = decode_request(call.request)

    def report(detail: dict[str, Any]) -> None:
        try:
            text = msgspec.json.encode(detail)
            if len(text) > MOST_BESIDES // 2:
                raise ValueError(f"it has {len(text)} bytes")
            write(Progress(text))
        except Exception as error:
            print(f"openhqm: a progress event was not stored: {describe(error)}", file=sys.stderr, flush=True)

    work = Work(request, call.attempt, call.time_left, _clock, report, call.max_attempts)
    reply = blank(request.correlation_id, Status.FAILED, 0.0, call.attempt, 0.0)
    try:
        answer = in_this_process(lambda: _answer(_load(call.path), work, runner))
        return _told("completed", msgspec.structs.replace(reply, **result_of(answer, call.most)))
    except Reject as error:
        return _told("rejected", failed(reply, error, call.most))
    except RetryLater as error:
        reply, delay, at_least = asked_delays(failed(reply, error, call.most), error, time.time())
        return msgspec.structs.replace(_told("later", reply), delay=delay, at_least=at_least)
    except UnusableAnswer as error:
        return Outcome("unusable", describe(error))
    except BaseException as error:  # of the handler
        return Outcome("failed", describe(error), traceback="".join(traceback.format_exception(error)))


def _bounded(outcome: Outcome) -> Outcome:
    """``outcome``, where what it has besides the answer is no larger than it may be."""
    fields = sum(len(name) + len(value) * 4 for name, value in outcome.headers.items())
    if fields > MOST_BESIDES // 2:
        return Outcome(
            "unusable", f"the header fields of the handler's answer have more than {MOST_BESIDES // 2} bytes"
        )
    return msgspec.structs.replace(outcome, traceback=outcome.traceback[-MOST_BESIDES // 16 :])


def _answer(handler: Callable[[Work], Any], work: Work, runner: asyncio.Runner) -> Any:
    answer = handler(work)
    if inspect.iscoroutine(answer):
        return runner.run(answer)
    if isinstance(answer, Deferred):
        raise TypeError("the handler returned a Deferred, but no reactor runs here: set worker.executor: reactor")
    return answer


def _told(kind: str, reply: Reply) -> Outcome:
    return Outcome(kind, reply.error or "", reply.result, reply.body, reply.status_code, dict(reply.headers))
