"""The verbs of ``lineside machines`` beside the common ones; torch-free until a verb runs."""

from pathlib import Path

from lineside.core.commands import build, print_results
from lineside.machines.config import Config

app = build(
    "machines", Config, "Is this machine still healthy? Condition monitoring from vibration."
)
RUN = Path("run")


@app.command
def predict(*files: Path, model: Path = RUN, json: bool = False) -> int:
    """Judge snapshots in order of time: one line each; exit code 1 on a finding, 2 if unreadable.

    Parameters
    ----------
    files: Path
        Folders of machines, folders of snapshots of one machine, or single files.
    model: Path
        A run, or a model folder in it.
    json: bool
        One JSON object per line.
    """
    from lineside.machines.serving import judge

    if not json:
        print(f"{'state':<13} {'novelty':>8}  item")
    return print_results(judge(files, model), as_json=json)


@app.command
def explain(file: Path, /, *, model: Path = RUN, out: Path = Path("explanation.html")) -> int:
    """Say in a sentence and pictures what speaks for the newest snapshot of a machine.

    Parameters
    ----------
    file: Path
        A file, or a folder of one machine.
    model: Path
        A run, or a model folder in it.
    out: Path
        The page that is written.
    """
    from lineside.machines.serving import explain_to_page

    print(explain_to_page(file, model, out))
    print(f"page    {out.resolve()}")
    return 0
