# -*- test-case-name: tests.test_service -*-
"""The names twistd looks for."""

from openhqm.options import OpenHQMOptions as Options
from openhqm.service import makeService

__all__ = ["Options", "makeService"]
