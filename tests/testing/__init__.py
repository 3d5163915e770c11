"""What is for tests, tested: the fake broker, and a toy adapter as an example."""
