"""The yardsticks of accepting: python -m benchmarks.yardsticks floor|klein PORT

``floor``: the smallest server of Twisted and llhttp that parses the JSON and answers a constant. ``klein``: a stock
Klein route that does the same.
"""

from __future__ import annotations

import sys

import httptools
import msgspec
from klein import Klein
from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.web.server import Site

CONSTANT = (
    b'{"correlation_id":"83cc9527-fadf-4445-bec3-cd5ed4611eff","status":"PENDING",'
    b'"submitted_at":"2026-02-07T10:30:00.000Z"}'
)
RESPONSE = b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(CONSTANT),
    CONSTANT,
)


class Floor(Protocol):
    """Parses a request and answers a constant."""

    def __init__(self):
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""

    def dataReceived(self, data):
        self.parser.feed_data(data)

    def on_body(self, body):
        self.body += body

    def on_message_complete(self):
        if self.body:
            msgspec.json.decode(self.body)
        self.body = b""
        self.transport.write(RESPONSE)


class Quiet(Site):
    """A site without a log line for each request."""

    noisy = False

    def log(self, request):
        pass


app = Klein()


@app.route("/api/v1/submit", methods=["POST"])
def submit(request):
    """Parse a request and answer a constant."""
    msgspec.json.decode(request.content.read())
    request.setResponseCode(202)
    request.setHeader(b"content-type", b"application/json")
    return CONSTANT


def main(which: str, port: int) -> None:
    """Serve until the process is killed."""
    factory = Factory.forProtocol(Floor) if which == "floor" else Quiet(app.resource(), parsePOSTFormSubmission=False)
    reactor.listenTCP(port, factory, interface="127.0.0.1", backlog=1024)
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
