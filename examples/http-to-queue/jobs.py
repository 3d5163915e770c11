"""Two operations, chosen by ``payload.operation``."""

import time


def resize(work):
    """Report progress while it works."""
    for done in (25, 50, 75, 100):
        time.sleep(0.05)
        work.progress(percent=done)
    return {"image": work.payload["image"], "size": "small"}


def count(work):
    """Fail at the first attempt, and succeed at the second."""
    if work.attempt == 1:
        raise ConnectionError("the database cannot be reached")
    return {"words": len(work.payload["text"].split()), "attempts": work.attempt}
