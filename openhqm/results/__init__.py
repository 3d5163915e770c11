"""Where answers rest until they expire."""
