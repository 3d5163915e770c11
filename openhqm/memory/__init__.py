"""The memory backend: queue and results in this process, gone with it."""
