"""Classical baselines for the deep detectors: no gradient descent on images, fitted in seconds.

`texture` (LBP and HOG with a linear model), `pca` and `gaussian` (multi-scale filters),
`golden_template` and `brightness` (trivial); `descriptors` and `registration` hold their features.
"""
