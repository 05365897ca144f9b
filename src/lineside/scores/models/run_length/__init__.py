"""Classical rival of the Deep Watershed Detector: staff removal, components, glyph classifier."""
