"""What OpenHQM promises, as tests."""
