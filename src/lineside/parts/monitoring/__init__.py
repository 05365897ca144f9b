"""In operation: watch a folder, image quality, drift, feedback and recalibration."""
