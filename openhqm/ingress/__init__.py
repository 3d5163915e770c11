"""The door: HTTP in and HTTP out. Apart from http1, only this package knows HTTP."""
