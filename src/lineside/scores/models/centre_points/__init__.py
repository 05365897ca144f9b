"""A generic detector of small objects, to compare the Deep Watershed Detector with."""
