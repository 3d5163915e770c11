"""Several processes on one port: the parent that looks after them, and what each of them knows of it."""
