# -*- test-case-name: tests.http1.test_access -*-
"""The access log: one event for each HTTP request, with the correlation id that it is about."""

from __future__ import annotations

import re
from typing import Any

from twisted.logger import Logger

from openhqm.http1.access import AccessRecord

_ID = re.compile(r"/api/v1/(?:status|response|events|cancel)/([0-9a-f-]{36})(?:/|\Z)")
# A key of ours and a token: `openhqm.ingress.access` refuses them in a URL.
_CREDENTIAL = re.compile(r"ohqm_\w*|eyJ[\w-]{8,}\.eyJ[\w.-]*")
_HIDDEN = "(a-credential)"
_log = Logger()


def note(served: AccessRecord) -> None:
    """Log an HTTP request. Its target is visible ASCII at this point, and the log formatter escapes the rest.

    A key or a token in it is hidden.
    """
    about: dict[str, Any] = {}
    path = _CREDENTIAL.sub(_HIDDEN, served.path)
    location = "" if served.location is None else served.location.decode("latin-1")
    found = _ID.match(location) or _ID.match(served.path)
    if found is not None:
        about["correlation_id"] = found[1]
    _log.info(
        "{method} {path} {status}, {bytes} bytes in {seconds} s",
        method=served.method,
        path=path,
        status=served.status,
        bytes=served.size,
        seconds=round(served.seconds, 6),
        **about,
    )
