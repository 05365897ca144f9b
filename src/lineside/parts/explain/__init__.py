"""Explanations: anomaly maps, zoom, exemplars, what the networks learned."""
