"""Training: a loop around any step function, checkpoints, the recorder and its warnings."""
