# -*- test-case-name: tests.test_service -*-
"""The names that twistd's plugin refers to."""

from openhqm.options import OpenHQMOptions as Options
from openhqm.service import makeService

__all__ = ["Options", "makeService"]
