"""A front with nothing but a sidecar in it, in a process of its own.

    python -m tests.ingress.sidecar_process UPSTREAM TIMEOUT

Prints its port. Where it waits in the queue, the "queue" answers with what it was handed.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from twisted.internet import reactor
from twisted.web.resource import Resource

from openhqm.http1.messages import Answer, FullRequest
from openhqm.http1.site import HTTP1Site
from openhqm.http1.upstream_pool import UpstreamPool, endpoint_for
from openhqm.ingress.fast_path import refused
from openhqm.ingress.sidecar import Sidecar
from openhqm.policy.own_paths import ROOT
from openhqm.policy.sidecar_rules import Rule

MOST_BODY = 100_000


class Ours(Resource):
    """Serve the gateway's own paths."""

    isLeaf = True

    def render(self, request: Any) -> bytes:
        request.setHeader(b"content-type", b"text/plain")
        return b"ours:" + request.uri


async def queue(message: FullRequest, wait: float | None) -> Answer:
    """Answer with what would have been queued."""
    document = {"target": message.head.target.decode(), "body": message.body.decode(), "wait": wait}
    return Answer(202, json.dumps(document).encode())


def front(upstream: str, timeout: float, clock: Any) -> tuple[HTTP1Site, Sidecar]:
    """A site, and its sidecar."""
    sidecar = Sidecar(
        UpstreamPool(endpoint_for(upstream, clock), clock),
        name=b"openhqm-test",
        rules=[Rule("/jobs/**", ("POST",), wait=7.0)],
        queue=queue,
        is_own=ROOT,
        timeout=timeout,
        longest_wait=60.0,
    )
    site = HTTP1Site(
        Ours(),
        clock,
        sidecar.fast_path(lambda message: None),
        refused,
        MOST_BODY,
        sidecar.select_sink,
        is_own=sidecar.is_own,
    )
    return site, sidecar


def main() -> None:
    """Serve until the process is killed."""
    site, _ = front(sys.argv[1], float(sys.argv[2]), reactor)
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    reactor.run()


if __name__ == "__main__":
    main()
