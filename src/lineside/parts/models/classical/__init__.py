"""Classical baselines for the deep detectors: no gradient descent on images, fitted in seconds."""
