"""How Hypothesis runs here: without a clock, without a memory, and in CI the same way every time.

Importing this module is enough.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "openhqm",
    deadline=None,
    database=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("openhqm")
