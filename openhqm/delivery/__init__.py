"""How an answer gets back to whoever waits for it."""
