"""Send the requests of an external corpus to the HTTP server, and compare which of them it serves.

    python -m tests.http1.request_corpus --corpus DIR

``DIR/invalid`` and ``DIR/valid`` hold one raw request in each file (``*.http``), as bytes or in escaped form: line ends
as the four characters ``\\r\\n``, while real line ends mean nothing. The server must refuse every request in
``invalid`` and serve every request in ``valid``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.http1.memory_server import MemoryServer


def read(path: Path) -> bytes:
    """The bytes of the request in a file of either form."""
    data = path.read_bytes()
    if b"\\r\\n" in data:
        data = data.replace(b"\r", b"").replace(b"\n", b"")
        for escaped, character in ((b"\\r", b"\r"), (b"\\n", b"\n"), (b"\\t", b"\t"), (b"\\0", b"\0")):
            data = data.replace(escaped, character)
    return data


def run(corpus: Path) -> list[str]:
    """One line for each request that the server should have refused or served, and did not."""
    failures = []
    for kind in ("invalid", "valid"):
        for path in sorted((corpus / kind).glob("*.http")):
            server = MemoryServer()
            statuses = server.statuses(server.send(read(path)))
            refused = not statuses or statuses[-1] >= 400
            if refused != (kind == "invalid"):
                failures.append(f"{kind}/{path.name}: {statuses or 'no answer'}, {len(server.seen)} seen")
    return failures


def main() -> int:
    """The exit code: 0 where the server did as it should with every request."""
    parser = argparse.ArgumentParser(prog="python -m tests.http1.request_corpus")
    parser.add_argument("--corpus", type=Path, required=True)
    corpus: Path = parser.parse_args().corpus
    cases = len(list(corpus.glob("*valid/*.http")))
    failures = run(corpus)
    for line in failures:
        print(line)
    print(f"{cases} cases, {len(failures)} failed")
    return 1 if failures or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
