"""Pure decisions: a value in, a value out."""
