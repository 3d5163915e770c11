"""The door: HTTP in, HTTP out. Only routes, readers of requests and writers of answers know HTTP."""
