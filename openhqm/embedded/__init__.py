"""The embedded database: one file that a queue and a result store rest in together."""
