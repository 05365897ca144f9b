"""What a unit of a 1-D network looks for, as a waveform and as a spectrum."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from lineside.core.contract import Figure
from lineside.core.report.plots import SERIES, panels


def spectrum_figure(
    title: str,
    caption: str,
    waveform: NDArray[np.floating[Any]],
    *,
    sampling_hz: float,
    y_label: str = "amplitude [input units]",
) -> Figure:
    """Return a waveform (time,) and, beside it, the amplitudes of its sines by frequency."""
    values = np.asarray(waveform, dtype=np.float64)
    seconds = np.arange(len(values)) / sampling_hz
    frequencies = np.fft.rfftfreq(len(values), 1 / sampling_hz)
    amplitudes = 2 * np.abs(np.fft.rfft(values - values.mean(), norm="forward"))

    def wave(axes: Axes) -> None:
        axes.plot(1000 * seconds, values, color=SERIES[0], linewidth=0.9)
        axes.set(xlabel="time [ms]", ylabel=y_label)

    def spectrum(axes: Axes) -> None:
        axes.plot(frequencies, amplitudes, color=SERIES[1], linewidth=0.9)
        axes.set(xlabel="frequency [Hz]", ylabel=y_label)

    return panels(title, caption, [wave, spectrum], size_inches=(7.2, 2.6))
