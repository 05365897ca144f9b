"""``lineside APP VERB ...``: one grammar, one-line errors, exit codes that scripts can trust.

Exit codes: 0 fine, 1 a finding, 2 bad usage or an unreadable item (wins over 1), 3 a bug (the
traceback goes to a file), 130 interrupted.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cyclopts

from lineside import __version__
from lineside.applications import APPLICATIONS
from lineside.core.errors import Note, UserError, printable, unknown_key
from lineside.core.run.files import LARGEST_JSON, check_file, parse_json
from lineside.core.run.seal import KEY_VARIABLE, MAKE_KEY

FINE, FINDING, BAD_INPUT, BUG, INTERRUPTED = 0, 1, 2, 3, 130
FILE_ERRORS = (FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
"""A file where a folder is expected, or the other way round: for the user to fix."""
NAME_ERRORS = (errno.ENAMETOOLONG, errno.ELOOP)

app = cyclopts.App(
    name="lineside",
    help="Deep learning at the side of the line: decisions a business can trust, offline.",
    help_epilogue="Every verb takes --config FILE.json (settings as JSON) and --key FILE: a model, "
    "run or audit trail is signed with the key when it is written, and refused when it was altered "
    "or not signed with it. The variable LINESIDE_KEY_FILE does the same.",
    version=__version__,
)
for _name, _help in APPLICATIONS.items():
    app.command(f"lineside.{_name}.commands:app", name=_name, help=_help)
app.command(
    "lineside.doctor:doctor",
    name="doctor",
    help="Print versions, processor and cache; say what is missing.",
)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    tokens = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a letter shows its code
            stream.reconfigure(errors="backslashreplace")
    given = os.environ.get(KEY_VARIABLE)
    try:
        with _notes():
            code = app(
                expand_config(take_key(tokens)),
                exit_on_error=False,
                print_error=False,
                result_action="return_value",
            )
        sys.stdout.flush()
        return int(code or FINE)
    except UserError as error:
        return _complain(str(error))
    except cyclopts.CycloptsError as error:
        return _complain(" ".join(str(error).split()))
    except KeyboardInterrupt:
        return INTERRUPTED
    except FILE_ERRORS as error:
        return _complain(f"{error.filename or 'a file'}: {error.strerror or error}")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE
    except OSError as error:
        if error.errno not in NAME_ERRORS:
            return _bug(error)
        return _complain(f"{error.filename or 'a file'}: {error.strerror}")
    except Exception as error:
        return _bug(error)
    finally:
        os.environ.pop(KEY_VARIABLE, None)
        if given is not None:
            os.environ[KEY_VARIABLE] = given


@contextmanager
def _notes() -> Iterator[None]:
    """Print every `Note` as one line; other warnings are shown as Python does."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_note(
            message: Warning | str, category: type[Warning], *place: Any, **more: Any
        ) -> None:
            if issubclass(category, Note):
                print(printable(f"note: {message}"), file=sys.stderr, flush=True)
            else:
                show(message, category, *place, **more)

        warnings.simplefilter("always", Note)
        warnings.showwarning = show_note
        yield


def take_key(tokens: list[str]) -> list[str]:
    """Take ``--key FILE`` out of a command; worker processes find the file in their environment.

    Raises:
        UserError: if the file is not named.
    """
    tokens = [piece for token in tokens for piece in _pieces(token, "--key")]
    if "--key" not in tokens:
        return tokens
    index = tokens.index("--key")
    if index + 1 >= len(tokens):
        raise UserError("--key needs a file", MAKE_KEY)
    os.environ[KEY_VARIABLE] = str(Path(tokens[index + 1]).absolute())
    return tokens[:index] + tokens[index + 2 :]


def expand_config(tokens: list[str]) -> list[str]:
    """Replace ``--config FILE.json`` by the flags it stands for; flags that are given win.

    The file holds an object of settings, or is the ``config.json`` of a run.

    Raises:
        UserError: if the file is not a JSON object of plain values.
    """
    tokens = [piece for token in tokens for piece in _pieces(token, "--config")]
    if "--config" not in tokens:
        return tokens
    index = tokens.index("--config")
    if index + 1 >= len(tokens):
        raise UserError("--config needs a file", "e.g. --config settings.json")
    path = Path(tokens[index + 1])
    rest = tokens[:index] + tokens[index + 2 :]
    try:
        check_file(path, LARGEST_JSON, "JSON file")
        settings = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}", "check the file") from error
    if isinstance(settings, dict) and isinstance(settings.get("config"), dict):
        settings = settings["config"]  # the config.json of a run
    if not isinstance(settings, dict):
        raise UserError(f"{path} must hold a JSON object", 'e.g. {"seed": 1}')
    _check_keys(path, settings, rest)
    given = {token.split("=")[0].removeprefix("--").removeprefix("no-") for token in rest}
    for key, value in settings.items():
        name = key.replace("_", "-")
        if name not in given:
            rest += _flag(name, value)
    return rest


def _pieces(token: str, flag: str) -> list[str]:
    return token.split("=", 1) if token.startswith(f"{flag}=") else [token]


def _check_keys(path: Path, settings: dict[str, object], tokens: list[str]) -> None:
    """Refuse keys that the application's Config does not have, with the nearest one."""
    import dataclasses
    import importlib

    try:
        config = importlib.import_module(f"lineside.{tokens[0]}.config").Config
    except (ImportError, AttributeError, IndexError):
        return
    known = [field.name for field in dataclasses.fields(config)]
    for key in settings:
        if key.replace("-", "_") not in known:
            raise unknown_key(path, key, known)


def _flag(name: str, value: object) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if isinstance(value, list):
        return [token for entry in value for token in (f"--{name}", str(entry))]
    return [f"--{name}", str(value)]


def _complain(line: str) -> int:
    print(printable(f"error: {line}"), file=sys.stderr)
    return BAD_INPUT


def _bug(error: Exception) -> int:
    text = "".join(traceback.format_exception(error))
    handle, name = tempfile.mkstemp(prefix="lineside-", suffix=".log")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    print(
        printable(
            f"error: a bug in lineside: {type(error).__name__}: {error} (traceback in {name})"
        ),
        file=sys.stderr,
    )
    return BUG
