"""What every queue shares, once: waiters, watchers, endings."""
