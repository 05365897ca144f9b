"""Engraved pages with the place and meaning of every symbol."""
