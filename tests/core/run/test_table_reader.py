import pytest

from lineside.core.errors import UserError
from lineside.core.run.table_reader import read_columns, read_named_rows


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_named_rows_whatever_program_saved_them(tmp_path, encoding, separator, end):
    text = 'path|größe|note\n a.png |1|"two\nlines|"\n||\nb.png|2|\n'
    path = tmp_path / "a.csv"
    path.write_bytes(text.replace("|", separator).replace("\n", end).encode(encoding))
    names, rows = read_named_rows(path, lambda name: name.strip().upper())
    assert names == ["PATH", "GRÖSSE", "NOTE"]
    assert rows == [
        {"PATH": "a.png", "GRÖSSE": "1", "NOTE": f"two{end}lines{separator}".strip()},
        {"PATH": "b.png", "GRÖSSE": "2", "NOTE": ""},
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"a,b\n1,2\n1\n", "row 3 has 1 cells, the header has 2"),
        (b"a,b\n\xe4,2\n", "cannot be read: 'utf-8' codec.* - save it as CSV in UTF-8"),
        (b"a,b\n1,2\n\0\0", "ends in 2 zero bytes"),
        (b"\x89PNG\r\n\x1a\n\0\0\1", "is no text file"),
    ],
)
def test_what_is_no_table_of_text_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_named_rows(path)


def test_a_file_that_is_missing_is_named(tmp_path):
    for read in (read_named_rows, read_columns):
        with pytest.raises(UserError, match=r"none.csv cannot be read: No such file"):
            read(tmp_path / "none.csv")


def test_numbers_are_read_from_windows_code_pages_and_decimal_commas(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("Größe;Wärme\n1,5;-2,25e1\n;3\n".encode("cp1252"))
    table = read_columns(path)
    assert table.names == ("Größe", "Wärme")
    assert table.numbers(1).tolist() == [-22.5, 3.0]
    assert str(table.numbers(0).tolist()) == "[1.5, nan]"
