"""What takes requests out of a queue and brings them to their end."""
