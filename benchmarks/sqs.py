"""What SQS costs: the adapter alone, and a whole gateway at a fixed rate and at rest, on ElasticMQ.

    python -m benchmarks.sqs [--messages 5000] [--rate 200] [--seconds 20]

Needs the jars that ``.ci/run`` gets. The server shares the machine, and is not counted.
"""

from __future__ import annotations

import json
import random
from typing import Any

from benchmarks.pubsub import adapter, gateway, options_of
from tests.sqs.server import ENVIRONMENT, REGION, ElasticMQ, new_session


def sqs_broker(server: ElasticMQ) -> Any:
    """The adapter."""
    from twisted.internet import reactor

    from openhqm.sqs.broker import SqsBroker

    return SqsBroker(reactor, random.random, endpoint_url=server.url, seconds=30.0, make_session=new_session)


def main() -> None:
    options = options_of("benchmarks.sqs")
    server = ElasticMQ().start()
    ours = json.dumps({"region": REGION, "endpoint_url": server.url})
    settings = {"OPENHQM_QUEUE__TYPE": "sqs", "OPENHQM_QUEUE__CONNECTION__SQS": ours, **ENVIRONMENT}
    try:
        gateway("sqs", settings, options.rate, options.seconds)
        adapter(sqs_broker(server), options.messages)
    finally:
        server.close()


if __name__ == "__main__":
    main()
