"""Generated documentation: tables of results, ``docs/cli.md``, the map in ``docs/architecture.md``.

Run: ``python -m benchmarks.tables`` writes them; ``--check`` only says whether they are current.
A table stands between ``<!-- results: NAME -->`` and ``<!-- end -->``, the map of all files between
``<!-- rooms -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machines import headlines as machines
from benchmarks.machines.headlines import Row
from benchmarks.results import RESULTS, ROOT
from lineside.core.run.files import write_bytes
from lineside.parts.config import METHOD_NAMES

PAGES = (
    "README.md",
    "src/lineside/parts/README.md",
    "src/lineside/machines/README.md",
    "docs/interpretability.md",
    "docs/machines.md",
)
COMMON_VERBS = ("train", "evaluate", "predict", "explain", "audit")
VERBS = {
    "parts": (*COMMON_VERBS, "watch", "feedback", "recalibrate", "demo"),
    "machines": (
        *COMMON_VERBS, "watch", "replay", "fleet", "acknowledge", "mute", "learn", "consent",
        "ledger", "verify", "demo",
    ),
}  # fmt: skip
MARK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.S)
ROOMS = re.compile(r"(<!-- rooms -->\n).*?(<!-- end -->)", re.S)
ARCHITECTURE = ROOT / "docs" / "architecture.md"
SOURCE = ROOT / "src" / "lineside"

HEADLINES: tuple[Row, ...] = (
    (
        "magnetic tiles, good images only: image AUROC",
        "tile_goodonly_auroc",
        "0.885",
        "tile_gaussian_auroc",
    ),
    (
        "- false rejects at 95 % recall",
        "tile_goodonly_frr_at_recall95",
        "0.45",
        "tile_gaussian_frr_at_recall95",
    ),
    (
        "magnetic tiles, with labels: image AUROC",
        "tile_labelled_auroc",
        "0.94",
        "tile_classical_auroc",
    ),
    (
        "- false rejects at 95 % recall",
        "tile_frr_at_recall95",
        "0.32",
        "tile_texture_frr_at_recall95",
    ),
    ("- AUPRO@30", "tile_aupro30", "0.85", "tile_texture_aupro30"),
    (
        "- head weighted inside the training folds; good-only of the same fits beside",
        "tile_nested_labelled_auroc",
        "0.955",
        "tile_nested_goodonly_auroc",
    ),
    (
        "a kind never seen: image AUROC (right: good-only)",
        "tile_unseen_kind_auroc",
        "-0.01",
        "tile_unseen_kind_goodonly_auroc",
    ),
    ("solar cells (ELPV): image AUROC", "elpv_auroc", "", "elpv_classical_auroc"),
    ("self-made catheters: image AUROC", "demo_detector_auroc", "", "demo_texture_auroc"),
    ("certificates: excess violations [standard errors]", "certificate_excess_sigma", "3", ""),
    ("same parts found from pictures: pair recall", "audit_pair_recall", "0.95", ""),
    ("- pair precision", "audit_pair_precision", "0.95", ""),
    ("fit on 300 images of 256 px [s]", "fit_seconds_300", "25", ""),
    ("opens of each picture file in a training", "pictures_opened_per_picture", "2", ""),
    ("predict one image, 95th percentile [ms]", "predict_ms_p95", "60", ""),
    ("a picture of 4096x256 px [s]", "predict_long_seconds", "1", ""),
    ("peak memory, 4096x256 included [MB]", "peak_rss_mb", "1500", ""),
    ("lineside --help [s]", "help_seconds", "0.3", ""),
    (
        "95 % intervals of AUROC hold, worst simulated case; percentile bootstrap beside",
        "coverage_auroc_worst",
        "0.93",
        "coverage_bootstrap_auroc_worst",
    ),
    (
        "- of false rejects at 95 % recall",
        "coverage_frr_worst",
        "0.93",
        "coverage_bootstrap_frr_worst",
    ),
    ("odd inputs with the right answer, of 16", "adversary_cases_right", "16", ""),
    ("damaged models that end in a traceback or hang, of 300", "fuzz_failures", "0", ""),
    ("recorder: share of the training's CPU time", "recorder_overhead", "0.02", ""),
    ("- on a small dense autoencoder", "recorder_overhead_small", "0.02", ""),
    ("- layers that die late, named", "warning_recall_late", "0.95", ""),
    (
        "- rare class labelled good, warned of; warnings on clean sets beside",
        "warning_recall_onesided",
        "0.8",
        "warning_false_onesided",
    ),
    ("explanations: largest difference to captum", "captum_max_difference", "1e-5", ""),
    (
        "flipped labels named in a run, false warnings beside",
        "warning_recall_labels",
        "0.9",
        "warning_false_rate",
    ),
    (
        "adversarial trace: AUC for FGSM 4/255, maximum softmax beside",
        "adversarial_auc_fgsm",
        "0.85",
        "softmax_auc",
    ),
    (
        "f-AnoGAN on tiles: image AUROC, PCA on the same patches beside",
        "fanogan_auroc",
        "",
        "pca_auroc",
    ),
)
SPLIT_PREFIXES = ("tile_", "elpv_", "demo_", "robust_", "vgg_", "crop_", "pretrained_", "random_")
"""Numbers that are means over three splits or seeds; one seed alone is marked."""
COLUMNS = (
    "auroc",
    "ap",
    "aupro30",
    "frr_at_recall95",
    "frr_at_recall100",
    "fit_seconds",
    "read_ms_p50",
    "read_ms_p95",
    "peak_rss_mb",
)
KINDS = ("blowhole", "break", "crack", "fray", "uneven")


def load() -> dict[str, Any]:
    """Return all published numbers of core and of every application; names do not repeat."""
    numbers: dict[str, Any] = {}
    for path in sorted(RESULTS.glob("*.json")):
        numbers.update(json.loads(path.read_text(encoding="utf-8")))
    return numbers


def text_of(results: Mapping[str, Any], name: str) -> str:
    """Return a number with its interval, or a dash if it was not measured."""
    row = results.get(name)
    if row is None or row["value"] is None:
        return "-"
    if 0 < abs(row["value"]) < 5e-4:
        return f"{row['value']:.1e}"
    digits = 3 if abs(row["value"]) < 10 else 0
    text = f"{row['value']:.{digits}f}"
    if row["low"] is not None:
        text += f" [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"
    single = len(row["seeds"]) == 1 and name.startswith(SPLIT_PREFIXES)
    return text + (" (1 split)" if single and row["unit"] == "fraction" else "")


def headline(results: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Return the table of headline numbers, with targets and baselines."""
    lines = ["| what | measured | target | baseline |", "|---|---|---|---|"]
    for title, name, target, baseline in rows:
        other = text_of(results, baseline) if baseline else ""
        lines.append(f"| {title} | {text_of(results, name)} | {target} | {other} |")
    return "\n".join(lines) + "\n"


def by_method(results: Mapping[str, Any], data: str) -> str:
    """Return the leaderboard of one data set."""
    titles = (
        "AUROC",
        "AP",
        "AUPRO@30",
        "FRR@95",
        "FRR@100",
        "fit [s]",
        "p50 [ms]",
        "p95 [ms]",
        "peak [MB]",
    )
    lines = ["| method | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|"]
    for method in METHOD_NAMES:
        cells = []
        for column in COLUMNS:
            name = f"{data}_{method}_{column}"
            if data == "tile" and method == "detector":
                name = _tile_name(column)
            cells.append(text_of(results, name))
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _tile_name(column: str) -> str:
    if column in ("auroc", "ap"):
        return f"tile_labelled_{column}"
    if column.startswith(("fit", "read")):
        return f"tile_detector_{column}"
    return f"tile_{column}"


def kinds(results: Mapping[str, Any]) -> str:
    """Return AUROC per kind: good-only, labelled, and unseen."""
    names = (
        ("good images only", "tile_goodonly_auroc_"),
        ("with labels", "tile_labelled_auroc_"),
        ("kind left out of training", "tile_unseen_kind_auroc_"),
    )
    lines = ["| regime | " + " | ".join(KINDS) + " |", "|---" * (len(KINDS) + 1) + "|"]
    for title, prefix in names:
        cells = [text_of(results, prefix + kind) for kind in KINDS]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def listing(results: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """Return named numbers, one a line."""
    lines = ["| name | value |", "|---|---|"]
    lines += [f"| `{name}` | {text_of(results, name)} |" for name in names]
    return "\n".join(lines) + "\n"


FINDINGS = (
    "vgg_eighth_ap", "vgg_quarter_ap", "vgg_half_ap", "vgg_quarter_minus_half_ap",
    "crop_ap_32", "crop_ap_64", "crop_ap_128", "crop_ap_256",
    "pretrained_train_ap", "pretrained_validation_ap", "pretrained_gap",
    "random_train_ap", "random_validation_ap", "random_gap",
    "demo_vgg_eighth_ap",
    "demo_vgg_quarter_ap",
    "demo_vgg_half_ap",
    "demo_vgg_quarter_minus_half_ap",
    "demo_crop_ap_32",
    "demo_crop_ap_64",
    "demo_crop_ap_128",
    "demo_crop_ap_256",
)  # fmt: skip
CERTIFICATES = tuple(
    f"certificate_{what}_{way}"
    for way in ("by_group", "by_group_counted_by_item", "by_item", "independent_items")
    for what in ("violation", "expected")
)


PREFIXES = {
    "robustness": ("robust_",),
    "recorder": ("recorder_", "warning_", "label_precision"),
    "captum": ("captum_",),
    "information": ("information_",),
    "zoom": ("zoom_",),
    "adversarial": (
        "adversarial_",
        "noise_control",
        "clean_twin",
        "softmax_auc",
        "total_variation_auc",
    ),
    "anogan": ("fanogan_", "pca_auroc", "autoencoder_auroc", "mean_patch_auroc"),
}
"""Tables of all numbers whose names start with a prefix."""


def table(name: str, results: Mapping[str, Any]) -> str:
    """Return the table of a mark.

    Raises:
        KeyError: for an unknown mark.
    """
    if name == "headline":
        return headline(results, HEADLINES)
    if name == "machines":
        return headline(results, machines.ROWS)
    if name == "all_machines":
        return listing(results, tuple(json.loads((RESULTS / "machines.json").read_bytes())))
    if name == "kinds":
        return kinds(results)
    if name == "findings":
        return listing(results, FINDINGS)
    if name == "certificates":
        return listing(results, CERTIFICATES)
    if name == "sanity":
        return sanity_checks(results)
    if name == "pointing":
        return pointing(results)
    if name in PREFIXES:
        return listing(results, tuple(sorted(k for k in results if k.startswith(PREFIXES[name]))))
    return by_method(results, {"tile": "tile", "demo": "demo", "elpv": "elpv"}[name])


def sanity_checks(results: Mapping[str, Any]) -> str:
    """Return the similarity of maps after randomising the upper half, or all, of the weights."""
    methods = sorted({key[7:].rsplit("_", 2)[0] for key in results if key.startswith("sanity_")})
    columns = [
        f"{depth}_{way}" for depth in ("half", "all") for way in ("absolute", "signed", "ssim")
    ]
    lines = ["| map | " + " | ".join(c.replace("_", ", ") for c in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for method in methods:
        if f"sanity_{method}_all_signed" in results:
            cells = [text_of(results, f"sanity_{method}_{column}") for column in columns]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def pointing(results: Mapping[str, Any]) -> str:
    """Return the share of maps whose maximum hits the labelled defect, by kind."""
    kinds = [""] + [f"_{kind}" for kind in KINDS]
    names = {key[9:] for key in results if key.startswith("pointing_")}
    methods = [n for n in names if not n.endswith(KINDS)]
    order = sorted(methods, key=lambda n: (-results[f"pointing_{n}"]["value"], n))
    lines = ["| map | all | " + " | ".join(KINDS) + " |", "|---" * (len(KINDS) + 2) + "|"]
    for method in order:
        cells = [text_of(results, f"pointing_{method}{kind}") for kind in kinds]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def fill_tables(page: str, results: Mapping[str, Any]) -> str:
    """Return the text of a page with the current content of every marked table."""
    return MARK.sub(lambda m: f"{m[1]}{table(m[2], results)}{m[3]}", page)


def command_page() -> str:
    """Return ``docs/cli.md``: the help of every verb as it is printed."""
    parts = ["# Command line", "", "Generated by `make docs`; do not edit.", ""]
    pages = [["--help"]]
    pages += [[app, verb, "--help"] for app, verbs in VERBS.items() for verb in verbs]
    for words in pages:
        run = subprocess.run(
            [sys.executable, "-m", "lineside", *words],
            capture_output=True, text=True, check=True,
            env={**os.environ, "COLUMNS": "90", "TERM": "dumb", "NO_COLOR": "1"},
        )  # fmt: skip
        text = "\n".join(line.rstrip() for line in run.stdout.strip().splitlines())
        parts += [f"## lineside {' '.join(words[:-1])}".rstrip(), "", "```", text, "```", ""]
    return "\n".join(parts)


def first_line(path: Path) -> str:
    """Return the first line of a module's docstring, empty if it has none."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def room_map() -> str:
    """Return one table per folder of the package, one line per file."""
    lines = []
    for folder in sorted({path.parent for path in SOURCE.rglob("*.py")}):
        lines += [f"### `{folder.relative_to(SOURCE.parent).as_posix()}/`", ""]
        lines += [first_line(folder / "__init__.py"), "", "| file | |", "|---|---|"]
        for path in sorted(folder.glob("*.py")):
            if path.name != "__init__.py":
                text = first_line(path).replace("|", "\\|")
                lines.append(f"| `{path.name}` | {text} |")
        lines.append("")
    return "\n".join(lines)


def architecture_page() -> str:
    """Return ``docs/architecture.md`` with the current map."""
    page = ARCHITECTURE.read_text(encoding="utf-8")
    return ROOMS.sub(lambda match: f"{match[1]}{room_map()}{match[2]}", page)


def pages() -> dict[Path, str]:
    """Return every page that holds tables with what it should hold."""
    results = load()
    return {
        ROOT / name: fill_tables((ROOT / name).read_text(encoding="utf-8"), results)
        for name in PAGES
    }


def refresh() -> None:
    """Fill the tables again; called whenever a number is published, so that the two agree."""
    for path, text in pages().items():
        if path.read_text(encoding="utf-8") != text:
            write_bytes(path, text.encode())


def main() -> int:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    code = 0
    contents = {
        **pages(),
        ROOT / "docs" / "cli.md": command_page(),
        ARCHITECTURE: architecture_page(),
    }
    for path, text in contents.items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        code = 1
        print(f"{path.relative_to(ROOT)} is {'out of date' if options.check else 'written'}")
        if not options.check:
            path.write_text(text, encoding="utf-8")
    return code if options.check else 0


if __name__ == "__main__":
    sys.exit(main())
