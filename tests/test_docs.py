"""Generated documentation is current: tables of results, command line, map of the files."""

import re

from benchmarks import tables


def all_pages():
    readmes = tables.SOURCE.rglob("README.md")
    return [*tables.ROOT.glob("*.md"), *(tables.ROOT / "docs").glob("*.md"), *readmes]


def test_tables_agree_with_published_numbers():
    results = tables.load()
    for name in tables.PAGES:
        page = (tables.ROOT / name).read_text(encoding="utf-8")
        assert tables.fill_tables(page, results) == page, f"run make docs: {name}"
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


def test_glossary_names_files_that_exist():
    page = (tables.ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    terms = [row for row in rows if row[0] != "term"]
    assert len({row[0] for row in terms}) == len(terms) >= 50
    for term, meaning, where in terms:
        assert meaning.endswith("."), term
        paths = re.findall(r"`([\w/]+\.py)`", where)
        assert paths, term
        for path in paths:
            assert (tables.SOURCE / path).is_file(), f"{term}: {path} does not exist"


def test_links_between_pages_lead_somewhere():
    for page in all_pages():
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.relative_to(tables.ROOT)}: {link}"


def test_files_named_on_pages_exist():
    roots = [tables.ROOT, tables.SOURCE, *(tables.SOURCE / name for name in tables.VERBS)]
    roots += [tables.SOURCE / "core", tables.SOURCE.parent]
    example = "src/lineside/parts/models/classical/median_image.py"  # of adding_a_method.md
    for page in all_pages():
        for name in re.findall(r"`([\w.]+/[\w/.]+\.py)`", page.read_text(encoding="utf-8")):
            known = name == example or any((root / name).is_file() for root in roots)
            assert known, f"{page.relative_to(tables.ROOT)}: {name} does not exist"


def test_published_rates_are_fractions():
    for name, row in tables.load().items():
        if row["unit"] == "fraction" and row["value"] is not None and "minus" not in name:
            assert -0.5 <= row["value"] <= 1, name
        assert re.fullmatch(r"[a-z0-9_]+", name), name
        assert row["command"].startswith("python -m benchmarks."), name
