"""Generated documentation is current: tables of results, command line, map of the files."""

import re

from benchmarks import tables


def test_tables_agree_with_published_numbers():
    results = tables.load()
    for name in tables.PAGES:
        page = (tables.ROOT / name).read_text(encoding="utf-8")
        assert tables.filled(page, results) == page, f"run make docs: {name}"
        assert page.count("<!-- results:") == len(tables.MARK.findall(page))


def test_command_page_is_current():
    page = (tables.ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == tables.command_page(), "run make docs"


def test_map_of_the_files_is_current():
    page = tables.ARCHITECTURE.read_text(encoding="utf-8")
    assert page == tables.architecture_page(), "run make docs"
    assert len(tables.ROOMS.findall(page)) == 1
    for path in tables.SOURCE.rglob("*.py"):
        assert tables.first_line(path).endswith((".", "?")), f"{path}: no whole sentence"


def test_published_rates_are_fractions():
    for name, row in tables.load().items():
        if row["unit"] == "fraction" and row["value"] is not None and "minus" not in name:
            assert -0.5 <= row["value"] <= 1, name
        assert re.fullmatch(r"[a-z0-9_]+", name), name
        assert row["command"].startswith("python -m benchmarks."), name
