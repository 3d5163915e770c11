"""A FastStream consumer on confluent-kafka that commits each message after it was processed, and publishes its echo.

    BENCH_KAFKA=HOST:PORT python benchmarks/peer_faststream.py TOPIC [REPLIES]

Without REPLIES the echo goes nowhere. Needs ``faststream[confluent]``, in a virtual environment of its own.
"""

from __future__ import annotations

import asyncio
import os
import sys

from faststream import AckPolicy, FastStream
from faststream.confluent import KafkaBroker

broker = KafkaBroker(os.environ["BENCH_KAFKA"], logger=None)
topic, *replies = sys.argv[1:]


async def echo(message: dict) -> dict:
    return message


if replies:
    echo = broker.publisher(replies[0])(echo)
broker.subscriber(topic, group_id="bench", auto_offset_reset="earliest", ack_policy=AckPolicy.ACK)(echo)


if __name__ == "__main__":
    asyncio.run(FastStream(broker, logger=None).run())
