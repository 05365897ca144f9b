"""Reconstruction of good patches: convolutional autoencoder and patch PCA."""
