"""The Deep Watershed Detector."""
