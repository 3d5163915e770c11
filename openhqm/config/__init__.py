"""The configuration: its records, how it is loaded, and what is checked."""
