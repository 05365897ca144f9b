"""Times, memory, and the scale of pages."""

from __future__ import annotations

import time

import numpy as np
from PIL import Image

from benchmarks.results import Say, plain
from benchmarks.scores.detection import shipped
from benchmarks.scores.songs import pages, songs
from lineside.scores.data.normalise import normalise
from lineside.scores.data.staff_space import staff_space
from lineside.scores.engraving.page import read_page, truth_of
from lineside.scores.engraving.verovio_engraver import engrave, random_style

INTERLINES_PX = (6.0, 7.5, 9.0, 10.5, 14.0, 18.0, 25.0, 40.0)
A4_INTERLINE_PX = 20.7  # of a page at 300 dpi with staves of 7 mm
REPEATS, SONGS = 7, 12


def staff_spaces(say: Say) -> None:
    """Share of the test pages whose staff space is found to 3 %, from 6 to 40 px."""
    right = []
    for number, path in enumerate(sorted(pages("test").glob("*.png"))):
        truth = read_page(truth_of(path))
        for wanted in INTERLINES_PX[number % 2 :: 2]:
            factor = wanted / truth.interline_px
            size = (round(truth.width * factor), round(truth.height * factor))
            with Image.open(path) as image:
                grey = np.asarray(image.convert("L").resize(size, Image.Resampling.LANCZOS))
            found = staff_space(grey)
            exact = truth.interline_px * size[1] / truth.height
            right.append(found is not None and abs(found / exact - 1) <= 0.03)
    reason = "engraved pages, each at four of eight sizes"
    say("staff_space_right", plain(float(np.mean(right)), "fraction", len(right), reason=reason))


def page_maker(say: Say) -> None:
    """Pages that are engraved and drawn in a second of one core."""
    made, begin = 0, time.process_time()
    for number, score in enumerate(songs()[0][:SONGS]):
        made += len(list(engrave(score.path, random_style(np.random.default_rng(number)))))
    rate = made / (time.process_time() - begin)
    say("pages_made_per_second", plain(rate, "pages/s", made, reason="processor time"))


def page_seconds(say: Say) -> None:
    """Wall time of one page of 300 dpi: turning upright, scaling, network and decoding."""
    (path, *_) = sorted(pages("test").glob("*.png"))
    factor = A4_INTERLINE_PX / read_page(truth_of(path)).interline_px
    with Image.open(path) as image:
        size = (round(image.width * factor), round(image.height * factor))
        grey = np.asarray(image.convert("L").resize(size, Image.Resampling.LANCZOS))
    detector = shipped()
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        detector.detect(normalise(grey, detector.interline_px).grey)
        times.append(time.perf_counter() - begin)
    reason = f"{size[0]} x {size[1]} px, median of {REPEATS}, two threads"
    say("page_seconds", plain(float(np.median(times)), "s", REPEATS, "lower", reason))
