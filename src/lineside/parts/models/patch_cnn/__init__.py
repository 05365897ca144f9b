"""Patch CNN: VGG19 on fixed-size, unscaled crops."""
