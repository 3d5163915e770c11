# -*- test-case-name: tests.ingress.test_tls -*-
"""Puts TLS in front of what listens, where the configuration has the files for it."""

from __future__ import annotations

from typing import Any

from openhqm.config.auth import ServerTLSFiles
from openhqm.errors import Complaint, ConfigurationError


def with_tls(files: ServerTLSFiles, section: str, factory: Any, reactor: Any) -> Any:
    """``factory``, behind TLS where ``files`` has any. `ConfigurationError` by the keys of ``section``."""
    if files.cert is None or files.key is None:
        return factory
    from openhqm.runtime.server_tls import ServerTLS  # here, because it imports OpenSSL

    tls = ServerTLS(
        files.cert,
        files.key,
        files.client_ca,
        str(files.minimum_version),
        section,
        reactor.seconds,
        files.client_crl,
    )
    try:
        tls.open()
    except ValueError as error:
        key, _, reason = str(error).partition(": ")
        raise ConfigurationError([Complaint(f"{section}.{key}", reason)]) from None
    return tls.wrap(factory, reactor)
