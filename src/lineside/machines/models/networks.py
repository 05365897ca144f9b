"""Networks of the deep detectors: windows of scaled rows in, the reconstructed last row out.

``forward`` is ``decode(latent(window))``: the latent is the narrowest layer, one row per window.

Shapes: B batch, T rows of a window (1 but for the LSTM), F features, C channels, M mel bands, W
feature maps, H hidden units, Z length of the code. Sizes that Stadelmann et al., "Beyond ImageNet",
2019, section 5, publish are the defaults of the fits in `autoencoders`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn


class DenseAutoencoder(nn.Module):
    """Fully connected sigmoid autoencoder with a linear output.

    With `noise`, Gaussian noise on the input in training: a denoising autoencoder (Vincent et al.,
    ICML 2008).
    """

    def __init__(self, features: int, hidden: Sequence[int], noise: float = 0.0) -> None:
        super().__init__()
        sizes = [features, *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.Sigmoid()]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], features))
        self.noise = noise

    def forward(self, window: Tensor) -> Tensor:
        """(B, 1, F) -> (B, F)."""
        row = window[:, -1]
        if self.training and self.noise > 0:
            row = row + self.noise * torch.randn_like(row)
        out: Tensor = self.layers(row)
        return out

    def latent(self, window: Tensor) -> Tensor:
        """(B, 1, F) -> (B, Z), the activations of the narrowest hidden layer."""
        code: Tensor = self.layers[: self._narrowest](window[:, -1])
        return code

    def decode(self, latent: Tensor) -> Tensor:
        """(B, Z) -> (B, F)."""
        out: Tensor = self.layers[self._narrowest :](latent)
        return out

    @property
    def _narrowest(self) -> int:
        """Number of modules up to the narrowest hidden layer and its sigmoid."""
        hidden = list(self.layers)[:-1]
        widths = [module.out_features for module in hidden if isinstance(module, nn.Linear)]
        return 2 * (widths.index(min(widths)) + 1)


class VariationalAutoencoder(nn.Module):
    """Variational autoencoder (Kingma and Welling, ICLR 2014); reconstructs from the mean code."""

    def __init__(self, features: int, hidden: int, latent: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(features, hidden), nn.Tanh())
        self.code = nn.Linear(hidden, 2 * latent)
        self.decoder = nn.Sequential(
            nn.Linear(latent, hidden), nn.Tanh(), nn.Linear(hidden, features)
        )

    def encode(self, window: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, F) -> mean and log variance of the code, (B, Z) each."""
        mean, log_variance = self.code(self.encoder(window[:, -1])).chunk(2, dim=1)
        return mean, log_variance.clamp(-10.0, 10.0)

    def forward(self, window: Tensor) -> Tensor:
        """(B, 1, F) -> (B, F)."""
        out: Tensor = self.decoder(self.encode(window)[0])
        return out

    def latent(self, window: Tensor) -> Tensor:
        """(B, 1, F) -> (B, Z), the mean code."""
        return self.encode(window)[0]

    def decode(self, latent: Tensor) -> Tensor:
        """(B, Z) -> (B, F)."""
        out: Tensor = self.decoder(latent)
        return out

    def loss(self, window: Tensor, weight: float) -> Tensor:
        """Return the negative evidence lower bound per feature: |x - x'|^2 + weight KL.

        KL(N(m, s^2) || N(0, 1)) = (m^2 + s^2 - 1 - log s^2) / 2, summed over the code; one sample
        of the code per row (reparametrisation, equation 10 of the paper).
        """
        mean, log_variance = self.encode(window)
        code = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        error = (self.decoder(code) - window[:, -1]).square().sum(1)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(1)
        return (error + weight * divergence).mean() / window.shape[2]


class LstmAutoencoder(nn.Module):
    """Three LSTM layers (outer, inner, outer units) that reconstruct a window of rows."""

    def __init__(self, features: int, outer: int, inner: int) -> None:
        super().__init__()
        self.encoder = nn.LSTM(features, outer, batch_first=True)
        self.code = nn.LSTM(outer, inner, batch_first=True)
        self.decoder = nn.LSTM(inner, outer, batch_first=True)
        self.head = nn.Linear(outer, features)

    def window(self, window: Tensor) -> Tensor:
        """(B, T, F) -> (B, T, F)."""
        code, _ = self.code(self.encoder(window)[0])  # (B, T, inner): a code per row
        out: Tensor = self.head(self.decoder(code)[0])
        return out

    def forward(self, window: Tensor) -> Tensor:
        """(B, T, F) -> (B, F), the last row."""
        return self.window(window)[:, -1]

    def latent(self, window: Tensor) -> Tensor:
        """(B, T, F) -> (B, T * Z), the codes of all rows one after the other."""
        return self.code(self.encoder(window)[0])[0].flatten(1)

    def decode(self, latent: Tensor) -> Tensor:
        """(B, T * Z) -> (B, F), the last row."""
        codes = latent.reshape(len(latent), -1, self.code.hidden_size)
        out: Tensor = self.head(self.decoder(codes)[0][:, -1])
        return out


class MelAutoencoder(nn.Module):
    """Convolutions along the mel bands, one input map per channel, and a dense code."""

    def __init__(self, channels: int, mels: int, width: int, latent: int) -> None:
        super().__init__()
        self.channels, self.mels = channels, mels
        self.encoder = nn.Sequential(
            nn.Conv1d(channels, width, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv1d(width, 2 * width, 5, stride=2, padding=2),
            nn.ReLU(),
        )
        self.short = math.ceil(mels / 4)  # bands after two strides of 2
        self.width = 2 * width
        self.code = nn.Linear(self.width * self.short, latent)
        self.spread = nn.Linear(latent, self.width * self.short)
        self.decoder = nn.Sequential(
            nn.Upsample(scale_factor=2),
            nn.Conv1d(2 * width, width, 5, padding=2),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv1d(width, channels, 5, padding=2),
        )

    def forward(self, window: Tensor) -> Tensor:
        """(B, 1, C*M) -> (B, C*M)."""
        return self.decode(self.latent(window))

    def latent(self, window: Tensor) -> Tensor:
        """(B, 1, C*M) -> (B, Z)."""
        # features of a row are sorted by channel: (B, C*M) -> (B, C, M)
        bands = window[:, -1].reshape(-1, self.channels, self.mels)
        code: Tensor = self.code(self.encoder(bands).flatten(1))  # (B, 2W, M/4) -> (B, Z)
        return code

    def decode(self, latent: Tensor) -> Tensor:
        """(B, Z) -> (B, C*M)."""
        spread = torch.relu(self.spread(latent)).reshape(-1, self.width, self.short)
        # upsampling rounds M up to a multiple of 4: cut, (B, C, M) -> (B, C*M)
        return self.decoder(spread)[:, :, : self.mels].flatten(1)


def build_network(kind: str, sizes: Mapping[str, Any], seed: int) -> nn.Module:
    """Return an untrained network; the same seed gives the same weights."""
    builders: dict[str, Callable[..., nn.Module]] = {
        "dense": DenseAutoencoder,
        "vae": VariationalAutoencoder,
        "lstm": LstmAutoencoder,
        "mel": MelAutoencoder,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return builders[kind](**sizes)
