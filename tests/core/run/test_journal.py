"""The journal of finished items: a line that was changed is never taken for a result."""

import json

from lineside.core.parallel import map_items
from lineside.core.run.journal import Journal


def squares(path, numbers):
    done = []

    def square(number):
        done.append(number)
        return number * number

    journal = Journal(path=path, content_hash=lambda number: f"hash of {number}")
    results = list(map_items(square, numbers, None, name_of=str, journal=journal))
    return results, done


def test_an_altered_line_is_told_and_its_item_done_again(tmp_path, capsys):
    path = tmp_path / "done.jsonl"
    assert squares(path, [2, 3, 4]) == ([4, 9, 16], [2, 3, 4])
    assert squares(path, [2, 3, 4]) == ([4, 9, 16], [])
    assert capsys.readouterr().err == ""
    lines = path.read_text().splitlines()
    unsealed = {k: v for k, v in json.loads(lines[2]).items() if k != "seal"}
    edits = (lines[0], lines[1].replace('"result": 9', '"result": 7'), json.dumps(unsealed))
    path.write_text("\n".join(edits) + "\n")
    assert squares(path, [2, 3, 4]) == ([4, 9, 16], [3, 4])
    assert "2 lines are not as this version wrote them" in capsys.readouterr().err
    assert squares(path, [2, 3, 4]) == ([4, 9, 16], [])
