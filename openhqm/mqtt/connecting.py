# -*- test-case-name: tests.mqtt.test_connecting -*-
"""What connecting needs besides paho: what is installed, the certificates, and why it did not work, in plain text."""

from __future__ import annotations

import ssl
from typing import Any

from openhqm.errors import Complaint, ConfigurationError, NotDurable, how_to_install
from openhqm.mqtt.address import Address

_NO_AUTHORITY = (18, 19, 20)  # X509_V_ERR: a certificate that signs itself, or whose issuer is not known
_NOT_ALLOWED = (0x86, 0x87)  # bad user name or password, not authorized (also those of MQTT 3.1.1)
_ITS_PORT = "is that the port of MQTT?"
SILENT = f"it closes the connection without a word: {_ITS_PORT}"
# Mosquitto 2.0.11, and any broker with MQTT 3.1.1, says nothing where a session is taken over.
CLOSED = "the broker closed it and gave no reason: it ended, or another client has the same client id"


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
    try:
        context = ssl.create_default_context(cafile=files.ca)
    except OSError as error:  # it has no name of the file
        raise NotDurable(f"tls.ca {files.ca}: {describe(error)}") from None
    if files.cert is not None:
        try:
            # For a key under a password, OpenSSL would prompt at the terminal.
            context.load_cert_chain(files.cert, files.key, password="")
        except OSError as error:
            raise NotDurable(f"tls.cert {files.cert}, tls.key {files.key}: {describe(error)}") from None
    return context


def describe(error: BaseException) -> str:
    """Why no connection could be made, in plain text."""
    if isinstance(error, NotDurable):
        return error.reason
    if isinstance(error, ssl.SSLCertVerificationError):
        unknown = ": name the authority of its certificate in tls.ca" if error.verify_code in _NO_AUTHORITY else ""
        return f"TLS: {error.verify_message}{unknown}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or str(error)).lower().replace('_', ' ')}"
    if isinstance(error, TimeoutError):
        return "it does not answer"
    if isinstance(error, OSError):
        name = f" {error.filename}" if error.filename else ""
        return f"{error.strerror or error}{name}"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def refusal(reason: Any) -> str:
    """Why the broker refuses the connection, from the reason code of its CONNACK."""
    check = ": check username, password and client_id" if reason.value in _NOT_ALLOWED else ""
    return f"it refuses the connection: {reason}{check}"


def unreadable(reason: object, connected: bool) -> str:
    """What came cannot be read, for this ``reason``. ``connected``: what came before was MQTT."""
    return f"what it sends cannot be read: {reason}{'' if connected else f': {_ITS_PORT}'}"


def too_late(result: Any, seconds: float) -> Any:
    """For `Deferred.addTimeout`: `NotDurable`."""
    raise NotDurable(f"it does not answer within {seconds:g} s")
