"""The parts that every queue shares: the delivery, its lease, the waiters, the watchers, the endings."""
