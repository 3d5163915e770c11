"""What stands before ElasticMQ and answers as SQS does where ElasticMQ does not: throttling, credentials, faults."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import treq
from twisted.internet import reactor
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from tests.servers import free_port

Answer = tuple[int, dict[str, Any]]
Rule = Callable[[str, dict[str, Any], str], Answer | None]
"""Answers an operation with these arguments and this ``Authorization`` header, or lets it pass."""


def refusal(code: str, status: int = 400) -> Answer:
    """An error as SQS answers it."""
    return status, {"__type": f"com.amazonaws.sqs#{code}", "message": f"{code} by the test"}


class _Site(Site):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.made: list[Any] = []

    def buildProtocol(self, addr: Any) -> Any:
        self.made.append(super().buildProtocol(addr))
        return self.made[-1]


class Front(Resource):
    """``asked`` counts the operations. ``rule`` answers in the place of ElasticMQ, and ``change`` changes its answers.

    ``date`` is what it says the time is.
    """

    isLeaf = True

    def __init__(self, url: str) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()
        self.rule: Rule = lambda operation, arguments, authorization: None
        self.change: Callable[[str, dict[str, Any], dict[str, Any]], None] = lambda operation, arguments, answer: None
        self.date: str | None = None
        self._to = url
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = 32
        self._agent = Agent(reactor, pool=self._pool)  # type: ignore[no-untyped-call]
        self.port = free_port()
        self._listening = reactor.listenTCP(self.port, _Site(self, timeout=None), interface="127.0.0.1")  # type: ignore[attr-defined]
        self._under_way: set[Any] = set()

    @property
    def url(self) -> str:
        """For ``endpoint_url``."""
        return f"http://127.0.0.1:{self.port}"

    def render_POST(self, request: Any) -> Any:
        body = request.content.read()
        operation = request.getHeader("x-amz-target").rpartition(".")[2]
        self.asked[operation] += 1
        arguments = json.loads(body)
        found = self.rule(operation, arguments, request.getHeader("authorization") or "")
        if found is not None:
            return self._write(request, *found)
        headers = {"X-Amz-Target": request.getHeader("x-amz-target"), "Content-Type": "application/x-amz-json-1.0"}
        asked = treq.request("POST", f"{self._to}/", headers=headers, data=body, agent=self._agent)
        asked.addCallback(lambda response: treq.json_content(response).addCallback(lambda said: (response.code, said)))
        self._under_way.add(asked)
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        asked.addCallback(self._answered, request, operation, arguments, gone)
        asked.addErrback(lambda failure: None if gone else request.processingFailed(failure))
        asked.addBoth(lambda _: self._under_way.discard(asked))
        return NOT_DONE_YET

    def _answered(self, found: Answer, request: Any, operation: str, arguments: Any, gone: list[object]) -> None:
        self.change(operation, arguments, found[1])
        if not gone:
            request.write(self._write(request, *found))
            request.finish()

    def _write(self, request: Any, code: int, said: dict[str, Any]) -> bytes:
        request.setResponseCode(code)
        request.setHeader("content-type", "application/x-amz-json-1.0")
        if self.date is not None:
            request.setHeader("date", self.date)
        return json.dumps(said).encode()

    async def close(self) -> None:
        """Stop listening, and end what is under way."""
        for made in self._listening.factory.made:
            if made._channel.transport is not None:
                made._channel.transport.abortConnection()
        await self._listening.stopListening()
        for each in list(self._under_way):
            each.cancel()
        await self._pool.closeCachedConnections()  # type: ignore[no-untyped-call]
