"""Two operations, chosen by ``payload.operation``."""

import time


def resize(work):
    """Tells how far it is while it works."""
    for done in (25, 50, 75, 100):
        time.sleep(0.05)
        work.progress(percent=done)
    return {"image": work.payload["image"], "size": "small"}


def count(work):
    """The first attempt fails, as things do; the second does not."""
    if work.attempt == 1:
        raise ConnectionError("the database is away for a moment")
    return {"words": len(work.payload["text"].split()), "attempts": work.attempt}
