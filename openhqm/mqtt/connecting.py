# -*- test-case-name: tests.mqtt.test_connecting -*-
"""What connecting needs besides paho: what is installed, the certificates, and why it did not work, in plain text."""

from __future__ import annotations

import ssl
from typing import Any

from openhqm.errors import Complaint, ConfigurationError, NotDurable, how_to_install
from openhqm.mqtt.address import Address


def check_installed() -> None:
    """`ConfigurationError` where a package that MQTT needs is not installed."""
    try:
        import paho.mqtt.client as client
    except ImportError as error:
        reason = f"mqtt needs more than is installed ({error}): {how_to_install('mqtt')}"
        raise ConfigurationError([Complaint("queue.type", reason)]) from None
    if not hasattr(client, "CallbackAPIVersion"):
        raise ConfigurationError([Complaint("queue.type", f"mqtt needs paho-mqtt 2: {how_to_install('mqtt')}")])


def tls_context(address: Address) -> ssl.SSLContext:
    """Verified, always. The files are read for each connection: certificates may be renewed meanwhile."""
    files = address.tls
    assert files is not None
    context = ssl.create_default_context(cafile=files.ca)
    if files.cert is not None:
        # For a key under a password, OpenSSL would prompt at the terminal.
        context.load_cert_chain(files.cert, files.key, password="")
    return context


def describe(error: BaseException) -> str:
    """Why no connection could be made, in plain text."""
    if isinstance(error, NotDurable):
        return error.reason
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or str(error)).lower().replace('_', ' ')}"
    if isinstance(error, TimeoutError):
        return "it does not answer"
    if isinstance(error, OSError):
        name = f" {error.filename}" if error.filename else ""
        return f"{error.strerror or error}{name}"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def too_late(result: Any, seconds: float) -> Any:
    """For `Deferred.addTimeout`: `NotDurable`."""
    raise NotDurable(f"it does not answer within {seconds:g} s")
