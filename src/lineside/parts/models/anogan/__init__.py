"""f-AnoGAN: a generative model of good patches, and an encoder that looks patches up in it.

Schlegl, Seeboeck, Waldstein, Langs and Schmidt-Erfurth, "f-AnoGAN: Fast unsupervised anomaly
detection with generative adversarial networks", Medical Image Analysis 54, 2019.
"""
