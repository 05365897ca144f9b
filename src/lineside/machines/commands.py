"""The verbs of ``lineside machines`` beside the common ones; torch-free until a verb runs."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lineside.core.commands import build, print_results
from lineside.machines.config import Config

app = build(
    "machines", Config, "Is this machine still healthy? Condition monitoring from vibration."
)
RUN = Path("run")
STORE = "machines.db"


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
        print(f"{'state':<13} {'novelty':>8}  {'time (UTC)':<19}  machine")
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


@app.command
def watch(
    *data: Path,
    model: Path = RUN,
    store: str = STORE,
    mqtt: str = "",
    http: str = "",
    once: bool = False,
    interval_seconds: float = 1.0,
    waveforms: bool = True,
    keep_days: float = 14.0,
    max_gb: float = 20.0,
    durable: bool = False,
    client_id: str = "",
    everything: Annotated[bool, Parameter(name="--all", negative="")] = False,
    json: bool = False,
) -> int:
    """Judge snapshots as they come in, by folder, HTTP or MQTT, and store each exactly once.

    It may be killed at any moment: the same command goes on where it was. Ctrl-C ends it.

    Parameters
    ----------
    data: Path
        Folders that recorders write to, one folder per machine, as for training.
    model: Path
        A run, or a model folder in it.
    store: str
        A SQLite file, or a URL: postgresql://USER@HOST/NAME.
    mqtt: str
        mqtt://[USER[:PASSWORD]@]HOST[:PORT]/TOPIC, mqtts:// for TLS.
    http: str
        [HOST:]PORT to listen on; without a host this computer only. There is no password.
    once: bool
        Take what is there, then end: exit code 1 on a finding, 2 if something was refused.
    interval_seconds: float
        Pause between two looks into a folder; a file is taken when it has not changed in between.
    waveforms: bool
        Store samples, not only what was computed from them.
    keep_days: float
        All samples this young stay; of older ones, one snapshot a day and those around alarms.
    max_gb: float
        Samples take no more room than this.
    durable: bool
        SQLite: survive power cuts to the last snapshot, for a flush of the disk each.
    client_id: str
        Name of the session at the MQTT broker; by default made from computer, store and topic.
    everything: bool
        Print every snapshot, not only what happened.
    json: bool
        One JSON object per line.
    """
    from lineside.machines.streams.commands import Options, RetentionPolicy, run_watch

    options = Options(
        once=once, interval_seconds=interval_seconds, keep_waveforms=waveforms, client_id=client_id,
    )  # fmt: skip
    retention = RetentionPolicy(days=keep_days, max_gb=max_gb)
    return run_watch(
        data, model, store, mqtt=mqtt, http=http, options=options, retention=retention,
        durable=durable, as_json=json, everything=everything,
    )  # fmt: skip


@app.command
def replay(machine: str, /, *, model: Path = RUN, store: str = STORE, json: bool = False) -> int:
    """Judge the stored snapshots of a machine again: the same verdicts, or those of a new model.

    Parameters
    ----------
    machine: str
        Its name.
    model: Path
        A run, or a model folder in it.
    store: str
        The store of a watch: a SQLite file, or a URL.
    json: bool
        One JSON object per line.
    """
    from lineside.machines.streams.commands import run_replay

    return run_replay(machine, model, store, as_json=json)


@app.command
def fleet(*, store: str = STORE, json: bool = False) -> int:
    """Print how every machine stands, the worst first; exit code 1 if one needs a person.

    Parameters
    ----------
    store: str
        The store of a watch: a SQLite file, or a URL.
    json: bool
        One JSON object per line.
    """
    from lineside.machines.streams.commands import run_fleet

    return run_fleet(store, as_json=json)


@app.command
def acknowledge(machine: str, /, *, store: str = STORE, by: str = "", why: str = "") -> int:
    """Say that the running alarm of a machine has been seen.

    Parameters
    ----------
    machine: str
        Its name.
    store: str
        The store of a watch: a SQLite file, or a URL.
    by: str
        Who; by default the user of this computer.
    why: str
        What is done about it.
    """
    from lineside.machines.streams.commands import run_action

    return run_action("acknowledge", machine, store, by=by, why=why)


@app.command
def mute(machine: str, /, *, hours: float, store: str = STORE, by: str = "", why: str = "") -> int:
    """Hold the alarms of a machine back for some hours; it is judged and stored all the same.

    Parameters
    ----------
    machine: str
        Its name.
    hours: float
        From now on.
    store: str
        The store of a watch: a SQLite file, or a URL.
    by: str
        Who; by default the user of this computer.
    why: str
        The reason.
    """
    from lineside.machines.streams.commands import run_action

    return run_action("mute", machine, store, by=by, why=why, hours=hours)


@app.command
def learn(
    data: Path,
    /,
    *,
    machine: str,
    since: str,
    out: Path,
    model: Path = RUN,
    until: str = "",
    by: str = "",
    why: str = "",
    over_alarm: bool = False,
) -> int:
    """Learn one machine anew from a time on, or a new one: makes a child of a model.

    Nothing is learned as normal without a person's name and reason; without them the command says
    how far it would move the machine's normal. All other machines stay as they are.

    Parameters
    ----------
    data: Path
        A folder of machines, or of this machine.
    machine: str
        Its name.
    since: str
        First time to learn from: a date, a date and time (UTC), or seconds.
    out: Path
        Folder of the child model; it may not exist yet.
    model: Path
        A run, or a model folder in it; it stays as it is.
    until: str
        Last time to learn from; a date includes its day. By default as many snapshots as a
        training takes.
    by: str
        Who answers for it.
    why: str
        The reason, e.g. "bearing replaced".
    over_alarm: bool
        Learn although an alarm is running.
    """
    from lineside.machines.training.relearning import Consent, learn_anew

    consent = Consent(by=by, why=why, over_alarm=over_alarm)
    lines = learn_anew(data, model, out, machine=machine, since=since, until=until, consent=consent)
    for line in lines:
        print(line)
    return 0


@app.command
def consent(*, machine: str, out: Path, model: Path = RUN, by: str = "", why: str = "") -> int:
    """Answer for a normal that drifted while it was learned: makes a child of a model.

    Parameters
    ----------
    machine: str
        Name of the machine.
    out: Path
        Folder of the child model; it may not exist yet.
    model: Path
        A run, or a model folder in it; it stays as it is.
    by: str
        Who answers for it.
    why: str
        The reason, e.g. "looked at it: a new belt".
    """
    from lineside.machines.training.relearning import Consent, give_consent

    for line in give_consent(model, out, machine=machine, consent=Consent(by=by, why=why)):
        print(line)
    return 0


@app.command
def ledger(*, model: Path = RUN) -> int:
    """Print what was learned as normal when, by whose consent and why; 1 if one is missing.

    Parameters
    ----------
    model: Path
        A run, or a model folder in it.
    """
    from lineside.machines.training.derived_models import model_of
    from lineside.machines.training.learning_record import ledger_lines, notes

    fitted = model_of(model)
    for line in ledger_lines(fitted):
        print(line)
    missing = notes(fitted)
    for line in missing:
        print(f"note    {line}")
    return 1 if missing else 0
