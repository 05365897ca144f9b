"""SQL of the questions."""
