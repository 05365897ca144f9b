"""Checks of images before training: unreadable files, duplicates, leaks, bad masks."""
