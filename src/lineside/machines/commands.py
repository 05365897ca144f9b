"""The verbs of ``lineside machines`` in addition to the common ones; torch-free until one runs."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lineside.core.commands import build
from lineside.machines.config import Config

app = build(
    "machines", Config, "Is this machine still healthy? Condition monitoring from vibration."
)
RUN = Path("run")
STORE = "machines.db"


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
    """Judge snapshots as they arrive in a folder, by HTTP or MQTT, and store each exactly once.

    It may be killed at any moment: the same command resumes where it stopped. Ctrl-C ends it.

    Parameters
    ----------
    data: Path
        Folders that recorders write to, with one folder per machine, as for training.
    model: Path
        A run, or a model folder in it.
    store: str
        A SQLite file, or a URL: postgresql://USER@HOST/NAME.
    mqtt: str
        mqtt://[USER[:PASSWORD]@]HOST[:PORT]/TOPIC, mqtts:// for TLS.
    http: str
        [HOST:]PORT to listen on; without a host only this computer can connect. No password.
    once: bool
        Judge what is there, then stop: exit code 1 on a finding, 2 if something was refused.
    interval_seconds: float
        Pause between two scans of a folder; a file is read once it has not changed in between.
    waveforms: bool
        Store samples as well as features and verdicts.
    keep_days: float
        Days for which all samples are kept; afterwards one snapshot a day and those near alarms.
    max_gb: float
        Disk space for samples, at most.
    durable: bool
        SQLite: lose no snapshot in a power cut, at the cost of one disk flush per snapshot.
    client_id: str
        Client id at the MQTT broker; by default made from computer, store and topic.
    everything: bool
        Print every snapshot, not only events.
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
def verify(*, store: str = STORE) -> int:
    """Check that no verdict in the store was changed, removed or inserted; exit code 1 if one was.

    Parameters
    ----------
    store: str
        The store of a watch: a SQLite file, or a URL.
    """
    from lineside.machines.streams.commands import run_verification

    return run_verification(store)


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
    """Print the status of every machine, the worst first; exit code 1 if one needs attention.

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
    """Acknowledge the active alarm of a machine.

    Parameters
    ----------
    machine: str
        Its name.
    store: str
        The store of a watch: a SQLite file, or a URL.
    by: str
        Who; by default the user of this computer.
    why: str
        A remark, e.g. what is done about it.
    """
    from lineside.machines.streams.commands import run_action

    return run_action("acknowledge", machine, store, by=by, why=why)


@app.command
def mute(machine: str, /, *, hours: float, store: str = STORE, by: str = "", why: str = "") -> int:
    """Mute the alarms of a machine for some hours; its snapshots are still judged and stored.

    Parameters
    ----------
    machine: str
        Its name.
    hours: float
        Duration from now.
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
    """Learn one machine again from a given time, or a new one, into a derived model.

    Nothing is learned as normal without a person's name and reason: without them the command is
    refused, and says how far the baseline would move. All other machines stay as they are.

    Parameters
    ----------
    data: Path
        A folder of machines, or of this machine.
    machine: str
        Its name.
    since: str
        First time to learn from: a date, a date and time (UTC), or seconds.
    out: Path
        Folder of the derived model; it must not exist yet.
    model: Path
        A run, or a model folder in it; it stays as it is.
    until: str
        Last time to learn from; a date includes its day. By default as many snapshots as in a
        training.
    by: str
        Who takes responsibility.
    why: str
        The reason, e.g. "bearing replaced".
    over_alarm: bool
        Learn although an alarm is active.
    """
    from lineside.machines.training.relearning import Consent, relearn

    consent = Consent(by=by, why=why, over_alarm=over_alarm)
    lines = relearn(data, model, out, machine=machine, since=since, until=until, consent=consent)
    print(*lines, sep="\n")
    return 0


@app.command
def consent(*, machine: str, out: Path, model: Path = RUN, by: str = "", why: str = "") -> int:
    """Consent to a baseline that drifted during training; makes a derived model.

    Parameters
    ----------
    machine: str
        Name of the machine.
    out: Path
        Folder of the derived model; it must not exist yet.
    model: Path
        A run, or a model folder in it; it stays as it is.
    by: str
        Who takes responsibility.
    why: str
        The reason, e.g. "inspected: a new belt".
    """
    from lineside.machines.training.relearning import Consent, give_consent

    print(*give_consent(model, out, machine=machine, consent=Consent(by=by, why=why)), sep="\n")
    return 0


@app.command
def ledger(*, model: Path = RUN) -> int:
    """Print the learning record: what was learned when, who consented; exit code 1 if consent
    is missing.

    Parameters
    ----------
    model: Path
        A run, or a model folder in it.
    """
    from lineside.core.run.model_store import load_model
    from lineside.machines.application import APPLICATION
    from lineside.machines.training.learning_record import consent_notes, learning_record_lines

    fitted = load_model(model, APPLICATION)
    for line in learning_record_lines(fitted):
        print(line)
    missing = consent_notes(fitted)
    for note in missing:
        print(f"note    {note}")
    return 1 if missing else 0
