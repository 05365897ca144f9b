"""Detectors of musical symbols."""
