"""Put events into the embedded queue, as another program would: python feed.py cfg.yaml"""

import os
import sys

from twisted.internet.task import deferLater, react

from openhqm.backends import PRODUCTS, make_backend
from openhqm.config.loading import load
from openhqm.messages import Submission
from openhqm.runtime.threads import SerialThread


async def main(reactor, path):
    settings = load(path, os.environ, PRODUCTS)
    addressing = settings.addressing()
    commits = SerialThread(reactor, "commits")
    backend = make_backend(settings, reactor, commits.run)
    await backend.start()
    for customer, event in (("ada", "ordered"), ("bob", "ordered"), ("ada", "paid"), ("ada", "shipped")):
        payload = b'{"customer": "%b", "event": "%b"}' % (customer.encode(), event.encode())
        acceptance = await backend.queue.accept(addressing.addressed(Submission(payload)), None)
        print(acceptance.correlation_id, customer, event)
    await deferLater(reactor, 0.1)  # until the last commit is complete
    await backend.stop()
    commits.stop()


react(main, sys.argv[1:])
