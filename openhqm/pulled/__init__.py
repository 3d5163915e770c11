"""A broker out of a product that is asked for its messages, by functions that may block."""
