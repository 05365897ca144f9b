"""A PostgreSQL server for the tests: a cluster of its own in a temporary folder."""

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest


def server_programs():
    """The folder of PostgreSQL's programs, None if there is none."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if programs:
        return programs[-1].parent
    on_path = shutil.which("pg_ctl")
    return Path(on_path).parent if on_path else None


@contextmanager
def cluster():
    """Start a server that listens on a socket only; give the URL of one of its databases."""
    programs = server_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg")
    user = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
    if user and shutil.which("runuser") is None:
        pytest.skip("PostgreSQL does not run as root, and runuser is missing")
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # a short path: sockets allow 100 signs
    if user:
        shutil.chown(folder, user)

    def call(*words):
        before = ["runuser", "-u", user, "--"] if user else []
        done = subprocess.run(
            [*before, str(programs / words[0]), *words[1:]], cwd="/", timeout=60,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        return done.returncode == 0, done.stderr.strip()

    data = f"{folder}/data"
    quick = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
    try:
        made, why = call("initdb", "-D", data, "-U", "tester", "-A", "trust", "-N", "-E", "UTF8")
        if made:
            made, why = call(
                "pg_ctl", "-D", data, "-w", "-l", f"{folder}/log", "-o", quick, "start"
            )
        if not made:
            pytest.skip(f"PostgreSQL cannot be started: {why}")
        try:
            yield f"postgresql://tester@/postgres?host={folder}"
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def new_database(url, name):
    """Make an empty database beside the one of a URL, and return its URL."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return url.replace("/postgres?", f"/{name}?")
