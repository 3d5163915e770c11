"""The table of docs/bridges.md that says where each part of a message is in each product: made by asking the code.

python -m tests.bridges.header_map
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pika

from openhqm.bridges.formats import Formats
from openhqm.bridges.reading import REPLY, Reader
from openhqm.config.bridges import Bridge, Source
from openhqm.ingress.submission import check_submission, read_submission
from openhqm.interfaces import Message, Properties
from openhqm.kafka.messages import to_record
from openhqm.mqtt.messages import to_payload
from openhqm.policy.addressing import Addressing
from openhqm.policy.cloud_events import binary
from openhqm.pubsub.foreign import with_attributes
from openhqm.rabbitmq.framing import Framing
from openhqm.redis.foreign import fields
from openhqm.sqs.messages import to_entry

BEGIN, END = "<!-- header map -->", "<!-- end of the header map -->"
PARTS = {
    "content_type": "text/x-probe",
    "reply_to": "probe/reply",
    "correlation": b"probe-correlation",
    "expiry": 4711,
}
HEADER = ("X-Probe", "probe-header")
EVENT = {"specversion": "1.0", "id": "probe-id", "source": "probe-source", "type": "probe-type"}


def message(**about: Any) -> Message:
    """A message with a header, and what is said of it."""
    return Message(b"\xff", {HEADER[0]: HEADER[1]}, None, Properties(**about))


def in_mqtt(sent: Message) -> Mapping[str, Any]:
    """The properties of the PUBLISH, by their names in the standard."""
    _, properties = to_payload(sent, True)
    known = {key: value for key, value in vars(properties).items() if re.match("[A-Z]", key)}
    user = dict(known.pop("UserProperty", ()))
    return {
        **{spaced(key): value for key, value in known.items()},
        **{f"user property `{key}`": user[key] for key in user},
    }


def in_amqp(sent: Message) -> Mapping[str, Any]:
    """The properties of the content header."""
    frames = Framing(1, 131_072).publish("q", sent.headers, b"x-1", sent.body, sent.properties)
    size = int.from_bytes(frames[3:7], "big") + 8
    properties = pika.BasicProperties()
    properties.decode(frames[size + 7 + 12 :])
    headers = properties.headers or {}
    plain = {f"`{key}`": value for key, value in vars(properties).items() if key != "headers" and value is not None}
    return {**plain, **{f"header `{key}`": value for key, value in headers.items()}}


def in_redis(sent: Message) -> Mapping[str, Any]:
    """The fields of the entry."""
    flat = fields(sent)
    return {f"field `{key!s}`": value for key, value in zip(flat[::2], flat[1::2], strict=True)}


def in_kafka(sent: Message) -> Mapping[str, Any]:
    """The headers of the record."""
    _, _, headers = to_record(sent)
    return {f"header `{key}`": value if isinstance(value, str) else _text(value) for key, value in headers}


def in_pubsub(sent: Message) -> Mapping[str, Any]:
    """The attributes of the message."""
    return {f"attribute `{key}`": value for key, value in with_attributes(sent).headers.items()}


def in_sqs(sent: Message) -> Mapping[str, Any]:
    """The attributes of the message."""
    attributes = to_entry(sent)[0]["MessageAttributes"]
    return {f"attribute `{key}`": value["StringValue"] for key, value in attributes.items()}


def _text(value: bytes) -> Any:
    return value if value in PARTS.values() else value.decode()


def in_request(received: Message) -> Mapping[str, Any]:
    """Where the request has it."""
    reader = Reader(
        Bridge(name="b", from_=Source("plant", topics=["#"])),
        Addressing(),
        Formats(read_submission, check_submission),
        lambda channel: None,
        100,
    )
    reading = reader.read(received, 0.0)
    found: dict[str, Any] = {f"header `{key}`": value for key, value in reading.submission.headers.items()}
    found |= {f"`metadata.{key}`": value for key, value in reading.submission.metadata.items()}
    for each in reading.follow_ups:
        found["where the reply goes"] = each.metadata[REPLY]["channel"]
        if "correlation" in each.metadata[REPLY]:
            found["the reply's correlation"] = PARTS["correlation"]
    return found


def where(found: Mapping[str, Any], probe: Any) -> str:
    """The names under which the probe is found."""

    def is_it(value: Any) -> bool:
        texts = {probe, str(probe), 1000 * probe if isinstance(probe, int) else probe}
        texts |= {str(each) for each in texts} | ({probe.decode()} if isinstance(probe, bytes) else set())
        return not isinstance(value, list) and value in texts

    return ", ".join(name for name, value in found.items() if is_it(value))


def spaced(name: str) -> str:
    """``ContentType`` as the standard writes it."""
    return re.sub("(?<=[a-z])(?=[A-Z])", " ", name)


def table() -> str:
    """The table, in Markdown."""
    products: list[Callable[[Message], Mapping[str, Any]]] = [in_mqtt, in_amqp, in_kafka, in_redis, in_pubsub, in_sqs]
    lines = ["| | MQTT 5 | AMQP 0-9-1 | Kafka | Redis | Pub/Sub | SQS | request |", f"|{8 * '---|'}"]

    def row(name: str, sent: Message, received: Message, probe: Any) -> None:
        cells = [where(each(sent), probe) or "-" for each in products]
        lines.append(f"| {' | '.join([name, *cells, where(in_request(received), probe) or '-'])} |")

    row("header", message(), message(), HEADER[1])
    for name, probe in PARTS.items():
        sent = message(**{name: probe})
        received = message(**{name: probe, **({"reply_to": "r"} if name == "correlation" else {})})
        row(name.replace("_", " "), sent, received, probe)
    for name, probe, cells in (
        ("topic", "probe/topic", "Topic Name | routing key | the topic | the stream | the subscription | the queue"),
        ("retained", True, "RETAIN | - | - | - | - | -"),
        ("duplicate", True, "DUP | redelivered | - | - | the delivery attempt | `ApproximateReceiveCount`"),
    ):
        lines.append(f"| {name} | {cells} | {where(in_request(message(**{name: probe})), probe)} |")
    for name in ("id", "source"):
        row_of_event(lines, name)
    return "\n".join(lines)


def row_of_event(lines: list[str], name: str) -> None:
    """An attribute of a CloudEvent."""
    kinds = (
        ("", "user property"),
        ("cloudEvents:", "header"),
        ("ce_", "header"),
        ("ce_", "field"),
        ("ce-", "attribute"),
        ("ce-", "attribute"),
    )
    for prefix, _ in kinds:
        assert binary(b"", {f"{prefix}{key}": value for key, value in EVENT.items()}, None) is not None
    cells = [f"{kind} `{prefix}{name}`" for prefix, kind in kinds]
    received = Message(b"1", EVENT, None, Properties())
    lines.append(f"| {' | '.join([f'CloudEvent `{name}`', *cells, where(in_request(received), EVENT[name])])} |")


if __name__ == "__main__":
    print(table())
