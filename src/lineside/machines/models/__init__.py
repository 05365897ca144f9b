"""Detectors of `machines`, one file each: healthy rows in, novelty out, all with one interface."""
