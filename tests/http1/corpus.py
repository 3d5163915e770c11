"""Run other people's cases against the front, without copying them in.

    python -m tests.http1.corpus --corpus DIR

``DIR/invalid`` and ``DIR/valid`` hold one raw request a file (``*.http``), either as bytes or written out: line ends
as the four characters ``\\r\\n``, real line ends without a meaning. Whatever is in ``invalid`` must not be served
whole, and whatever is in ``valid`` must be.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.http1.connections import Wire


def read(path: Path) -> bytes:
    """The request in a file, whichever way it is written."""
    data = path.read_bytes()
    if b"\\r\\n" in data:
        data = data.replace(b"\r", b"").replace(b"\n", b"")
        for written, meant in ((b"\\r", b"\r"), (b"\\n", b"\n"), (b"\\t", b"\t"), (b"\\0", b"\0")):
            data = data.replace(written, meant)
    return data


def run(corpus: Path) -> list[str]:
    """What went otherwise than it should: a line each."""
    wrong = []
    for kind in ("invalid", "valid"):
        for path in sorted((corpus / kind).glob("*.http")):
            wire = Wire()
            statuses = wire.statuses(wire.send(read(path)))
            refused = not statuses or statuses[-1] >= 400
            if refused != (kind == "invalid"):
                wrong.append(f"{kind}/{path.name}: {statuses or 'no answer'}, {len(wire.seen)} seen")
    return wrong


def main() -> int:
    """0 where every case went as it should."""
    parser = argparse.ArgumentParser(prog="python -m tests.http1.corpus")
    parser.add_argument("--corpus", type=Path, required=True)
    corpus: Path = parser.parse_args().corpus
    cases = len(list(corpus.glob("*valid/*.http")))
    wrong = run(corpus)
    for line in wrong:
        print(line)
    print(f"{cases} cases, {len(wrong)} otherwise")
    return 1 if wrong or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
