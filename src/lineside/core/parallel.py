"""Map a function over many items: in this process, in local worker processes, or on a Dask cluster.

`map_items` yields the same results in the same order in all three. Dask schedules the tasks, moves
them away from lost workers and restarts local ones. Added here:

- a bounded number of tasks is in flight, so the items may be a generator of any length;
- items travel in batches of about `BATCH_SECONDS`, longer ones where many workers would ask the
  scheduler for more than `TASKS_PER_SECOND`;
- an item that raises `UserError`, or that kills its worker every time, becomes one `Refusal`;
- a `Journal` keeps finished items, so that a killed run repeats none of them.

Dask pickles functions and items: functions must be importable by name, and items hold paths, never
pixels. Each worker process loads a model itself, once (`StoredModel`).
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import forkserver
from typing import TYPE_CHECKING, Any

from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.core.run.journal import Journal

if TYPE_CHECKING:
    from distributed import Client, Future

BATCH_SECONDS = 0.2
TASKS_PER_SECOND = 100  # a third of a core for client and scheduler
GROWTH = 0.05  # longest batch as a share of the time since the start: all workers end together
LARGEST_BATCH = 1000
BATCHES_PER_THREAD = 4  # in flight: enough that no worker waits for its next one
CONNECT_SECONDS = 20
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
DASK_SETTINGS = {
    # Workers are forks of a process that has only imported: torch does not survive a fork later.
    "distributed.worker.multiprocessing-method": "forkserver",
    "distributed.nanny.pre-spawn-environ": ONE_THREAD,
    # Whatever else interrupts a worker many times a second takes a fifth of its time.
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "1s",
    "distributed.admin.tick.interval": "2s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.comm.timeouts.connect": "10s",  # of a result whose worker has just died
    "distributed.deploy.lost-worker-timeout": "60s",  # a restart may take long under load
    "distributed.scheduler.allowed-failures": 1,  # workers that a task may lose before it fails
    "distributed.scheduler.http.routes": [],  # no dashboard
    "distributed.worker.http.routes": [],
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Executor:
    """Where `map_items` runs; made by `open_executor`.

    Attributes:
        client: Waits for the workers and returns the connection to them; None runs everything in
            this process.
    """

    client: Callable[[], Client] | None = None


class WorkerError(Exception):
    """A worker cannot do any item, e.g. because it does not see the model: the map ends."""


@contextmanager
def open_executor(
    *, workers: int = 1, cluster: str = "", preload: Sequence[str] = ()
) -> Iterator[Executor]:
    """Start local worker processes or connect to a cluster; both end with the context.

    Local workers start while the caller goes on; `Executor.client` waits for them.

    Args:
        workers: Number of local worker processes, one thread each; 1 runs in this process.
        cluster: Address of a Dask scheduler, ``tcp://HOST:PORT``, instead of local processes.
        preload: Modules that local workers will need, imported once for all of them.

    Raises:
        UserError: if Dask is missing, or the cluster is out of reach or has no usable worker.
    """
    if workers < 1:
        raise UserError(f"--workers {workers} is not possible", "give 1 or more")
    if workers == 1 and not cluster:
        yield Executor()
        return
    if not cluster:
        _start_fork_server(preload)
    try:
        import dask
        from distributed import Client
    except ImportError as error:
        flag = f"--cluster {cluster}" if cluster else f"--workers {workers}"
        hint = "pip install 'lineside[cluster]'"
        raise UserError(f"{flag} needs Dask, which is not installed", hint) from error
    with ExitStack() as stack:
        for name in ("distributed", "asyncio"):
            stack.enter_context(_quiet(name))
        stack.enter_context(dask.config.set(DASK_SETTINGS))
        if cluster:
            client = stack.enter_context(_connected(Client, cluster))
            yield Executor(client=lambda: client)
            return
        starter = stack.enter_context(ThreadPoolExecutor(1))
        started = starter.submit(_start_workers, stack, workers)
        try:
            yield Executor(client=started.result)
        finally:
            started.exception()  # waits: what has started is closed with the stack


def _start_fork_server(preload: Sequence[str]) -> None:
    """Start the process that local workers are forked from; it imports while this one goes on."""
    os.environ.update(ONE_THREAD)  # read by numerical libraries when they are imported
    multiprocessing.get_context("forkserver").set_forkserver_preload(["distributed", *preload])
    forkserver.ensure_running()


def _start_workers(stack: ExitStack, workers: int) -> Client:
    """Start local workers, which end with the stack; return the connection to them."""
    from distributed import Client, LocalCluster, Security

    local = LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, host="127.0.0.1",
        dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL,
        security=Security.temporary(),  # other users of this computer cannot send code
        preload=__name__,
    )  # fmt: skip
    # Replaces also workers that died while they started, which Dask's nannies do not restart.
    stack.enter_context(local).adapt(minimum=workers, maximum=workers)
    client = Client(local)
    stack.callback(client.close)  # not as a context: that would belong to this thread
    return client


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C to the main process, which ends its workers; called by Dask in each of them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep a log of Dask off standard error: losses are told as refusals or errors."""
    log = logging.getLogger(name)
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


@contextmanager
def _connected(client_type: type[Client], address: str) -> Iterator[Client]:
    """Connect to a scheduler whose workers run the same software as this process."""
    try:
        client = client_type(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise UserError(
            f"no Dask scheduler answers at {address}", "start one: dask scheduler --port 8786"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
            mine, theirs = _versions(), client.run(_versions)
        except TimeoutError as error:
            hint = f"start some: dask worker {address} --nworkers auto --nthreads 1"
            raise UserError(f"the cluster at {address} has no workers", hint) from error
        except ModuleNotFoundError as error:
            hint = "install the same version of lineside there"
            raise UserError(f"a worker of {address} lacks {error.name}", hint) from error
        for worker, versions in sorted(theirs.items()):
            if versions != mine:
                hint = "install the same versions on all of them"
                raise UserError(f"worker {worker} has {versions}, this computer {mine}", hint)
        for worker, threads in client.nthreads().items():
            if threads != 1:  # tasks change the working folder
                raise UserError(f"worker {worker} has {threads} threads", "start it: --nthreads 1")
        yield client


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("lineside", "torch", "numpy")}


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """An item on its way: its name, and its content hash if the journal knows it."""

    item: Any
    name: str
    known: str = ""


Done = tuple[str, Any]
"""Content hash and result of an entry; no result if the journal knows it by this hash."""


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What is done with an entry, here or on a worker in the same working folder."""

    folder: str
    function: Callable[[Any], Any]
    content_hash: Callable[[Any], str] | None

    def run(self, entry: _Entry) -> Done:
        try:
            digest = self.content_hash(entry.item) if self.content_hash else ""
        except OSError:  # the function will say what is wrong with the file
            digest = ""
        if digest and digest == entry.known:
            return digest, None
        try:
            return digest, self.function(entry.item)
        except UserError as error:
            return "", Refusal(item=entry.name, message=error.message, hint=error.hint)


def _run_batch(task: _Task, entries: Sequence[_Entry]) -> tuple[float, list[Done]]:
    """Run a batch on a worker; return the seconds it took, and its results."""
    try:
        os.chdir(task.folder)  # relative paths mean the same as here
    except OSError as error:
        raise WorkerError(f"a worker does not see the folder {task.folder}") from error
    if "torch" in sys.modules:  # one thread also where a worker was started without its nanny
        sys.modules["torch"].set_num_threads(1)
    start = time.perf_counter()
    done = [task.run(entry) for entry in entries]
    return time.perf_counter() - start, done


def map_items(
    function: Callable[[Any], Any],
    items: Iterable[Any],
    executor: Executor | None = None,
    *,
    name_of: Callable[[Any], str] = str,
    journal: Journal | None = None,
) -> Iterator[Any]:
    """Yield ``function(item)`` for every item in order, each as soon as all before it are done.

    Args:
        function: Importable by name, or a `functools.partial` of such a function.
        items: Any iterable; only those in flight are held.
        executor: Where to run, see `open_executor`; in this process by default.
        name_of: Name of an item in refusals and in the journal, unique there.
        journal: Keeps finished items and supplies those of an earlier run.

    Yields:
        A result, or a `Refusal` for an item that raises `UserError` or kills its worker.

    Raises:
        UserError: if the cluster is lost, or a worker cannot do any item.
    """
    content_hash = journal.content_hash if journal else None
    task = _Task(folder=os.getcwd(), function=function, content_hash=content_hash)
    known = journal.known() if journal else {}

    def entries() -> Iterator[_Entry]:
        for item in items:
            name = name_of(item)
            yield _Entry(item=item, name=name, known=known[name][0] if name in known else "")

    with ExitStack() as stack:
        keep = stack.enter_context(journal.opened()) if journal else None

        def finish(entry: _Entry, done: Done) -> Any:
            digest, result = done
            if journal and digest and digest == entry.known:
                return journal.decode(known[entry.name][1])
            if keep and digest and not isinstance(result, Refusal):
                keep(entry.name, digest, result)
            return result

        try:
            if executor is None or executor.client is None:
                yield from (finish(entry, task.run(entry)) for entry in entries())
            else:
                yield from _Flight(executor.client(), task, finish).results_of(entries())
        except WorkerError as error:
            raise UserError(str(error), "every worker must see the same files") from error


Batch = tuple[int, list[_Entry]]
"""Number of a batch in the order of the items, and its entries."""


@dataclass
class _Flight:
    """The batches of one map: on the workers, suspected, or finished before their turn.

    Attributes:
        client: Connection to the workers.
        task: What is done with each entry.
        finish: Called with each entry and what came of it, as soon as it is back.
        sent: Batches on the workers.
        suspects: Batches that lost their workers. Their items are tried one by one with nothing
            else on the cluster, so that a batch beside a poisoned item is not blamed for it.
        finished: Results by number of the batch, until all before it are yielded.
        seconds: Running mean of the time an item takes, for the size of the next batch.
        start: Time of the monotonic clock when the map began.
    """

    client: Client
    task: _Task
    finish: Callable[[_Entry, Done], Any]
    sent: dict[Future, Batch] = field(default_factory=dict)
    suspects: list[Batch] = field(default_factory=list)
    finished: dict[int, list[Any]] = field(default_factory=dict)
    seconds: float = BATCH_SECONDS
    start: float = field(default_factory=time.monotonic)

    def results_of(self, entries: Iterator[_Entry]) -> Iterator[Any]:
        """Yield the results of all entries in order."""
        from distributed import as_completed

        running = as_completed(loop=self.client.loop)
        begun = following = window = refreshed = threads = 0
        try:
            while True:
                if begun >= refreshed + window:  # workers may come and go
                    threads = max(sum(self.client.nthreads().values()), 1)
                    refreshed, window = begun, BATCHES_PER_THREAD * threads
                while not self.suspects and begun - following < window:
                    if not (batch := list(islice(entries, self._size(threads)))):
                        break
                    future = self._submit(batch)
                    self.sent[future] = begun, batch
                    running.add(future)
                    begun += 1
                if self.sent:
                    self._receive(running.next_batch())
                elif self.suspects:
                    number, batch = self.suspects.pop()
                    self.finished[number] = [self._alone(entry) for entry in batch]
                else:
                    return
                while following in self.finished:
                    yield from self.finished.pop(following)
                    following += 1
        finally:
            self.client.cancel(list(self.sent))

    def _size(self, threads: int) -> int:
        """Return how many entries the next batch has."""
        longest = min(threads / TASKS_PER_SECOND, GROWTH * (time.monotonic() - self.start))
        size = int(max(BATCH_SECONDS, longest) / max(self.seconds, 1e-9))
        return min(max(size, 1), LARGEST_BATCH)

    def _submit(self, batch: list[_Entry]) -> Future:
        return self.client.submit(_run_batch, self.task, batch, pure=False)

    def _receive(self, futures: list[Future]) -> None:
        """Take what came of batches that left the workers."""
        for future, done in zip(futures, self._fetch(futures), strict=True):
            number, batch = self.sent.pop(future)
            if done is None:
                self.suspects.append((number, batch))
            else:
                self.finished[number] = list(map(self.finish, batch, done))

    def _alone(self, entry: _Entry) -> Any:
        """Run one entry with nothing else on the cluster; refuse it if it kills its workers."""
        done = self._fetch([self._submit([entry])])[0]
        if done is not None:
            return self.finish(entry, done[0])
        message = "every worker process that tried it was killed (a crash, or out of memory)"
        return Refusal(item=entry.name, message=message, hint="leave it out, or try it by itself")

    def _fetch(self, futures: list[Future]) -> list[list[Done] | None]:
        """Return the results of each batch, or None for one that lost too many workers.

        Raises:
            UserError: if the connection to the scheduler broke.
        """
        try:
            outcomes = self.client.gather(futures)  # one message for all of them
        except Exception:
            outcomes = [self._fetch_one(future) for future in futures]
        for outcome in filter(None, outcomes):
            seconds, done = outcome
            self.seconds += (seconds / len(done) - self.seconds) / 4
        return [outcome and outcome[1] for outcome in outcomes]

    def _fetch_one(self, future: Future) -> Any:
        from distributed import CancelledError, KilledWorker
        from distributed.comm import CommClosedError

        try:
            return future.result()
        except KilledWorker:
            return None
        except (CancelledError, CommClosedError) as error:
            raise UserError(
                "the connection to the Dask scheduler was lost", "repeat the command when it runs"
            ) from error
