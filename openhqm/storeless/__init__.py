"""Workers that have no store: they report each step to the process that accepted the request."""
