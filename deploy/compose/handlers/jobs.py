"""The handler of compose.yaml. A change of this file takes effect at once."""


def handle(work):
    """Answer with the payload."""
    return {"received": work.payload, "attempt": work.attempt}
