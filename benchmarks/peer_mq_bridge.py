"""mq-bridge from a topic of Kafka to an HTTP target, 64 calls at once.

    BENCH_KAFKA=HOST:PORT python benchmarks/peer_mq_bridge.py TOPIC URL

Needs ``mq-bridge``, in a virtual environment of its own.
"""

from __future__ import annotations

import os
import sys

from mq_bridge import Route

topic, url = sys.argv[1:]
kafka = {
    "url": os.environ["BENCH_KAFKA"],
    "topic": topic,
    "group_id": "bench",
    "consumer_options": [["auto.offset.reset", "earliest"]],
}
route = Route.from_config(
    {
        "input": {"kafka": kafka},
        "output": {"http": {"url": url, "batch_concurrency": 64}},
        "batch_size": 64,
        "concurrency": 1,
    }
)
route.run()
