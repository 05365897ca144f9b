"""The robustness chapter: how fast detection falls when pictures get worse, grade by grade."""

from __future__ import annotations

import numpy as np

from lineside.core.contract import Section, Table
from lineside.core.report import plots
from lineside.core.statistics import auroc
from lineside.core.study import Study
from lineside.parts.data.images import training_image
from lineside.parts.data.items import PartImage
from lineside.parts.report.adversarial_row import adversarial_row
from lineside.parts.simulation.degradations import SEVERITIES, SUITE, degrade

BUDGET_SECONDS = 20.0
FEWEST, MOST = 12, 80


def robustness(study: Study) -> Section:
    """Degrade test images by grade 1 to 5 and compare AUROC with the same images as they are.

    The number of images is chosen so that the suite takes about 20 s.
    """
    items = chosen_items(study)
    model = study.best.model
    labels = np.array([float(item.faulty) for item in items])
    if len(np.unique(labels)) < 2:
        return Section(title="Robustness")
    examples = [training_image(item) for item in items]
    clean = auroc([model.predict_image(e.image()).score for e in examples], labels)
    rows, curves = [], {}
    for degradation in SUITE:
        values = [clean]
        for grade in SEVERITIES:
            worse = [degrade(e, degradation, grade, study.config.seed) for e in examples]
            values.append(auroc([model.predict_image(e.image()).score for e in worse], labels))
        rows.append((degradation.name, *(f"{value:.3f}" for value in values), degradation.help))
        curves[degradation.name] = (np.arange(6, dtype=float), np.array(values))
    return Section(
        title="Robustness",
        lead=(
            f"The same {len(items)} test images, made worse in five grades. What falls here will "
            "fall in production when lamps age, lenses get dirty or parts shift."
        ),
        blocks=(
            Table(
                title="Image AUROC by grade",
                columns=("degradation", "as is", *(f"grade {g}" for g in SEVERITIES), "what it is"),
                rows=tuple(rows),
                caption=f"Few images ({len(items)}): read the trend, not the third digit.",
            ),
            plots.lines(
                "Robustness",
                "A steep line is a weakness; grade 0 is the picture as it is.",
                curves,
                x_label="grade of degradation",
                y_label="image AUROC [-]",
            ),
            *adversarial_row(study),
        ),
    )


def chosen_items(study: Study) -> list[PartImage]:
    """Return as many test images as the time allows, good and faulty alternating by part."""
    outcomes = study.best.outcomes["test"]
    seconds = float(np.median([o.value["ms"] for o in outcomes])) / 1000 if outcomes else 0.1
    reads = BUDGET_SECONDS / max(seconds, 1e-3) / (1 + len(SEVERITIES) * len(SUITE))
    count = int(np.clip(reads, FEWEST, MOST))
    rng = study.run.rng("robustness items")
    chosen: list[PartImage] = []
    for faulty in (False, True):
        pool = [item for item in study.split.test if item.faulty == faulty]
        take = min(len(pool), count // 2)
        chosen += [pool[i] for i in sorted(rng.choice(len(pool), take, replace=False))]
    return chosen
