"""Scans and photos of engraved pages."""
