"""Run every test and close with one line: ``N passed, N failed, N skipped``.

    python -m tests [names of modules, cases or tests]

A wrapper around trial, whose exit code it keeps.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile


def main(names: list[str]) -> int:
    """The exit code of trial."""
    with tempfile.TemporaryDirectory(prefix="openhqm-trial-") as scratch:
        command = [sys.executable, "-m", "twisted.trial", "--temp-directory", os.path.join(scratch, "trial")]
        trial = subprocess.Popen(
            [*command, *(names or ["tests"])], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        counts: dict[str, int] = {}
        assert trial.stdout is not None
        for line in trial.stdout:
            print(line, end="", flush=True)
            if re.match(r"(PASSED|FAILED)\b", line):
                counts = {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", line)}
        code = trial.wait()
    failed = sum(counts.get(kind, 0) for kind in ("failures", "errors", "unexpectedSuccesses"))
    passed = counts.get("successes", 0) + counts.get("expectedFailures", 0)
    print(f"{passed} passed, {failed} failed, {counts.get('skips', 0)} skipped")
    return code or (0 if passed else 1)


sys.exit(main(sys.argv[1:]))
