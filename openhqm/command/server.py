# -*- test-case-name: tests.command.test_dead -*-
"""Requests to a process that runs, over TCP or a Unix socket, each with a deadline."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

SECONDS = 60.0
"""How long an answer may take. The process ends one of several changes after a few seconds."""
MOST_ANSWER = 256 * 1024 * 1024


class NotReached(Exception):
    """No process answers there."""


class Refused(Exception):
    """The process has answered that it does not do this. ``status`` is the code, ``retry_after`` in seconds or None."""

    def __init__(self, status: int, detail: str, retry_after: int | None = None) -> None:
        super().__init__(f"the process refuses this with {status}: {detail}")
        self.status = status
        self.detail = detail
        self.retry_after = retry_after


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SECONDS)
        self.sock.connect(self._path)


class Server:
    """The process at ``url``: ``http://host:port``, ``https://host:port`` or ``unix:/path``. `ValueError`.

    ``key`` is the API key to send, where the process asks for one.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url
        self._fields = {} if key is None else {"Authorization": f"Bearer {key}"}
        if url.startswith("unix:"):
            self._make: Any = lambda: _UnixConnection(url.removeprefix("unix:").removeprefix("//"))
            return
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError(f"{url} must be like http://127.0.0.1:8000 or unix:/run/openhqm.sock")
        host, port = parts.hostname, parts.port
        if parts.scheme == "http":
            self._make = lambda: http.client.HTTPConnection(host, port or 80, timeout=SECONDS)
        else:
            context = ssl.create_default_context()
            self._make = lambda: http.client.HTTPSConnection(host, port or 443, timeout=SECONDS, context=context)

    def ask(self, method: str, path: str, document: Any = None) -> Any:
        """The JSON of the answer; None where it has no body. `Refused`, `NotReached`.

        Whatever is asked of dead letters may be asked again where no answer came: what was done stays done.
        """
        body = self.ask_bytes(method, path, document)
        return json.loads(body) if body else None

    def ask_bytes(self, method: str, path: str, document: Any = None) -> bytes:
        """The same, as the bytes that came."""
        connection = self._make()
        sent = None if document is None else json.dumps(document).encode()
        try:
            fields = {} if sent is None else {"Content-Type": "application/json"}
            connection.request(method, path, sent, {**fields, **self._fields})
            answer = connection.getresponse()
            body: bytes = answer.read(MOST_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise NotReached(
                f"no answer from {self.url}: {reason}. Is the process running? "
                "Say with --url where it listens, or with --config what it was started with"
            ) from None
        finally:
            connection.close()
        if answer.status >= 300:
            raise _refusal(answer, body)
        if answer.status != 204 and answer.getheader("Content-Type") != "application/json":
            raise Refused(answer.status, f"{self.url} is no OpenHQM")
        return body


def _refusal(answer: http.client.HTTPResponse, body: bytes) -> Refused:
    retry_after = answer.getheader("Retry-After") or ""
    seconds = int(retry_after) if retry_after.isascii() and retry_after.isdigit() else None
    try:
        problem = json.loads(body)
        detail = str(problem["detail"])
        field = problem.get("field")
    except (ValueError, KeyError, TypeError, AttributeError):
        return Refused(answer.status, f"{answer.reason}; it does not answer like OpenHQM", seconds)
    return Refused(answer.status, f"{field} {detail}" if field and field not in detail else detail, seconds)
