# -*- test-case-name: tests.kafka.test_errors -*-
"""What librdkafka says, in our words. Its codes: https://docs.confluent.io/platform/current/clients/librdkafka/."""

from __future__ import annotations

import re
from typing import Any

from openhqm.errors import Complaint, ConfigurationError, NotDurable, how_to_install
from openhqm.interfaces.broker import ChannelMissing

STOPPED = "the client was stopped"
MISSING = frozenset({"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION", "UNKNOWN_TOPIC_ID"})
REFUSED_AT_ONCE = frozenset({"_AUTHENTICATION", "_SSL", "SASL_AUTHENTICATION_FAILED", "UNSUPPORTED_SASL_MECHANISM"})
"""The broker was reached and does not let us in: waiting longer says no more."""
UNREACHABLE = frozenset({"_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE", "_TIMED_OUT"})
"""There is no connection: `Reconnecting` says so, once."""
_NOT_DONE = frozenset({"_PURGE_QUEUE", "_QUEUE_FULL", "MSG_SIZE_TOO_LARGE", "TOPIC_AUTHORIZATION_FAILED"})
_SIZE = re.compile(r"Invalid response size (\d+)")
_SHORT = {
    "_TIMED_OUT": "it does not answer",
    "_MSG_TIMED_OUT": "it did not confirm the message in time",
    "_TRANSPORT": "it cannot be reached",
    "_ALL_BROKERS_DOWN": "no broker can be reached",
    "_AUTHENTICATION": "it refuses user name and password, or the token",
    "MSG_SIZE_TOO_LARGE": "the message is larger than the topic takes (max.message.bytes)",
    "TOPIC_AUTHORIZATION_FAILED": "its ACLs do not allow that on this topic",
    "GROUP_AUTHORIZATION_FAILED": "its ACLs do not allow this consumer group",
    "NOT_ENOUGH_REPLICAS": "fewer replicas are in sync than min.insync.replicas asks for",
}


def check_installed(product: str = "kafka", extra: str = "kafka", key: str = "queue.type") -> None:
    """`ConfigurationError` where the package that Kafka, or a product like it, needs is not installed."""
    try:
        import confluent_kafka  # noqa: F401
    except ImportError as error:
        reason = f"{product} needs more than is installed ({error}): {how_to_install(extra)}"
        raise ConfigurationError([Complaint(key, reason)]) from None


def refuses(error: Any) -> bool:
    """Whether a ``KafkaError`` says that waiting longer helps nothing: a server was reached, and it is none for us."""
    return error.name() in REFUSED_AT_ONCE or _foreign_server(error) is not None


def _foreign_server(error: Any) -> str | None:
    """What answers in place of Kafka: librdkafka takes the first four bytes for the size of an answer."""
    size = _SIZE.search(error.str()) if error.name() == "_BAD_MSG" else None
    if size is None:
        return None
    begins = int(size[1]).to_bytes(8, "big")[4:]
    if begins == b"HTTP":
        return "it answers HTTP, and is no Kafka broker: check the port"
    if begins[:2] in (b"\x15\x03", b"\x16\x03"):
        return "it expects TLS: say tls: true, or use its other port"
    return "it answers something else than the protocol of Kafka: check host and port"


def describe(error: Any) -> str:
    """A ``KafkaError``, or an exception with one, in plain text."""
    if isinstance(error, NotDurable):
        return error.reason
    if isinstance(error, BaseException) and error.args and hasattr(error.args[0], "name"):
        error = error.args[0]
    if not hasattr(error, "name"):
        return f"{type(error).__name__}: {error}"
    name = error.name()
    said: str = error.str()
    if (foreign := _foreign_server(error)) is not None:
        return foreign
    if name in ("_SSL", "_RESOLVE", "_TRANSPORT"):  # what librdkafka adds says where and why
        said = said.rpartition("]: ")[2].partition(" (after ")[0]
        return said if name != "_TRANSPORT" or not said.startswith("Broker transport failure") else _SHORT[name]
    return _SHORT.get(name, said)


def outcome(error: Any, channel: str) -> NotDurable | None:
    """What a delivery report says of a message."""
    if error is None:
        return None
    name = error.name()
    if name in MISSING:
        return ChannelMissing(channel)
    return NotDurable(f"Kafka did not take the message: {describe(error)}", maybe_done=name not in _NOT_DONE)


def name_of(error: Any) -> str:
    """The name of the code of a ``KafkaException``, or "" for another exception."""
    first = error.args[0] if isinstance(error, BaseException) and error.args else error
    name: str = first.name() if hasattr(first, "name") else ""
    return name
