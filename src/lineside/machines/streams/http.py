"""Snapshots over HTTP: a sender is answered when its snapshot is committed, and not before.

``POST /snapshots`` ingests one snapshot (see `message`) and answers 200 with its `IngestResult`,
400 with one line if it cannot be judged as it is, 409 if another one of its machine and time is
stored, 413 if it is too large, and 503 if it should be sent again later. A sender that is not
answered sends again: ingest is idempotent. ``GET /health``, ``GET /machines`` and ``GET /metrics``
(for Prometheus) report the state. There is no password: it listens to this computer only, unless
told otherwise.
"""

import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from lineside.core.errors import UserError
from lineside.core.run.files import finite
from lineside.machines.store.ingest_result import STATUSES, IngestResult
from lineside.machines.store.queries import MachineStatus
from lineside.machines.streams.ingestor import Ingestor, NotStoredError
from lineside.machines.streams.message import MAX_MESSAGE_BYTES, too_large

try:
    import uvicorn
    from fastapi import FastAPI, Request, Response
    from fastapi.responses import JSONResponse, PlainTextResponse
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import ClientDisconnect
except ImportError as error:
    raise UserError("--http needs FastAPI and uvicorn", "pip install 'lineside[http]'") from error

MAX_HELD_BYTES = 8 * MAX_MESSAGE_BYTES
"""Of all bodies that are being read or wait to be judged, whatever the number of senders."""
START_SECONDS, STOP_SECONDS = 10.0, 5.0
Fleet = Callable[[], Sequence[MachineStatus]]
"""Returns the state of every machine."""


@dataclass(kw_only=True)
class HttpSource:
    """A server in a thread of its own.

    Attributes:
        host: Address it listens on.
        port: 0 for any free one; then the one that was chosen.
        ingestor: Ingests the snapshots.
        fleet: The state of all machines.
    """

    ingestor: Ingestor
    fleet: Fleet
    host: str = "127.0.0.1"
    port: int = 0

    def __post_init__(self) -> None:
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Whether the server runs."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Listen.

        Raises:
            UserError: if the address is in use, or not of this computer.
        """
        listener = _listen(self.host, self.port)
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            make_app(self.ingestor, self.fleet),
            log_config=None, access_log=False, lifespan="off", timeout_keep_alive=75,
            timeout_graceful_shutdown=int(STOP_SECONDS), ws="none",
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name="http", daemon=True
        )
        self._thread.start()
        until = time.monotonic() + START_SECONDS
        while not self._server.started and self.alive and time.monotonic() < until:
            time.sleep(0.01)
        if not self._server.started:
            raise UserError(f"the server on port {self.port} does not start", "try again")

    def stop(self) -> None:
        """Answer what is under way and end; the ingestor should be closed by then."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(2 * STOP_SECONDS)


def make_app(ingestor: Ingestor, fleet: Fleet) -> FastAPI:
    """Return the application that a server runs."""
    app = FastAPI(title="lineside machines", docs_url=None, redoc_url=None, openapi_url=None)
    on_writer = ingestor.run_on_writer
    held = 0

    @app.post("/snapshots")
    async def snapshots(request: Request) -> Response:
        nonlocal held  # changed by coroutines of one thread only
        stated = request.headers.get("content-length", "")
        size = int(stated) if stated.isdigit() else MAX_MESSAGE_BYTES
        if size > MAX_MESSAGE_BYTES:
            return _problem(413, too_large())
        if held + size > MAX_HELD_BYTES:
            return _again_later("too many snapshots are waiting")
        held += size
        try:
            body = await _body(request)
            if body is None:
                return _problem(413, too_large())
            sender = f"from {request.client.host if request.client else 'somebody'}"
            ingest = partial(ingestor.ingest_message, body, "http", sender)
            return await run_in_threadpool(_run, lambda: _answer(ingest()))
        finally:
            held -= size

    @app.get("/health")
    async def health() -> Response:
        code, status = (503, "stopping") if ingestor.stopping else (200, "ok")
        return JSONResponse({"status": status, "waiting": ingestor.waiting}, code)

    @app.get("/machines")
    def machines() -> Response:
        return _run(lambda: JSONResponse(finite([asdict(m) for m in on_writer(fleet)])))

    @app.get("/metrics")
    def metrics() -> Response:
        return _run(lambda: PlainTextResponse(metrics_text(ingestor, on_writer(fleet))))

    return app


def metrics_text(ingestor: Ingestor, machines: Sequence[MachineStatus]) -> str:
    """Return counters and states in the text format of Prometheus."""
    lines = _family("snapshots_total", "Snapshots since the start, by what became of them.", [
        (f'{{status="{status}"}}', ingestor.counts[status]) for status in STATUSES
    ], kind="counter")  # fmt: skip
    lines += _family("waiting", "Snapshots that wait to be judged.", [("", ingestor.waiting)])
    named = [(f'machine="{_escaped(machine.machine)}"', machine) for machine in machines]
    lines += _family("machine_state", "1 for the state that a machine is in.", [
        (f'{{{name},state="{_escaped(machine.state)}"}}', 1) for name, machine in named
    ])  # fmt: skip
    for key, help_text in (
        ("novelty", "Novelty of the newest judged snapshot."),
        ("limit", "Novelty from which on a snapshot counts towards an alert."),
        ("time", "Time of the newest judged snapshot in seconds since 1970."),
        ("episode", "Number of the running alarm episode, 0 without one."),
    ):
        rows = [(f"{{{name}}}", getattr(machine, key)) for name, machine in named]
        lines += _family(f"machine_{key}", help_text, rows)
    return "\n".join(lines) + "\n"


def _family(
    name: str, help_text: str, rows: Sequence[tuple[str, float | None]], kind: str = "gauge"
) -> list[str]:
    return [
        f"# HELP lineside_{name} {help_text}",
        f"# TYPE lineside_{name} {kind}",
        *(f"lineside_{name}{label} {value!r}" for label, value in rows if value is not None),
    ]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _run(work: Callable[[], Response]) -> Response:
    try:
        return work()
    except (NotStoredError, UserError) as error:  # the watch ends, or the store does not answer
        return _again_later(str(error))


def _again_later(reason: str) -> Response:
    answer = JSONResponse({"error": reason, "hint": "send it again"}, 503)
    answer.headers["Retry-After"] = "1"
    return answer


def _answer(result: IngestResult) -> Response:
    code = 400 if result.status == "refused" else 200
    if result.status == "duplicate" and result.message:  # another snapshot of the same time
        code = 409
    return JSONResponse(finite(result.as_json()), code)


def _problem(code: int, error: UserError) -> Response:
    return JSONResponse({"status": "refused", "error": error.message, "hint": error.hint}, code)


async def _body(request: Request) -> bytes | None:
    """Return the body, None as soon as it is too large."""
    pieces, size = [], 0
    try:
        async for piece in request.stream():
            size += len(piece)
            if size > MAX_MESSAGE_BYTES:
                return None
            pieces.append(piece)
    except ClientDisconnect:
        return b""
    return b"".join(pieces)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        raise UserError(
            f"{host}:{port} cannot be listened on: {error}", "choose another port, or 127.0.0.1"
        ) from error
    listener.listen(128)
    return listener
