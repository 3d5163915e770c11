"""Where requests wait."""
