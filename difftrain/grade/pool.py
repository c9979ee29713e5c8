"""Worker processes for graders, killed when an answer takes too long or too much memory.

A timeout in a thread cannot stop sympy, and Python's signal handlers do not interrupt C code. Here
each call has its own wall-clock limit, which starts when a worker begins the call, and the kernel
ends the worker at that limit. Workers are spawned, not forked: they share no memory, threads or GPU
with their parent. The library pebble manages the processes.
"""

import logging
import os
import resource
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from enum import StrEnum
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from pebble import ProcessExpired, ProcessPool

logger = logging.getLogger(__name__)

MEMORY_BYTES = 4 << 30  # 4 GiB of address space; an answer that needs more ends the worker
GRACE_S = 1.0  # the parent kills a worker that still runs this long after its limit
START_TIMEOUT_S = 120.0  # to start a worker or prepare a call; not part of the call's own limit
MAX_FAILED_STARTS = 3  # starts in a row without a finished call before the pool gives up
STDERR_CHARS = 2_000  # last characters of the workers' stderr in an error message

Prepare = Callable[[], None] | None  # a worker runs it before each call, without the call's limit
_in_worker = False


class GradeFailure(StrEnum):
    """Why a call to a worker has no result."""

    timed_out = "timed_out"
    died = "died"


class GraderPoolError(RuntimeError):
    """Workers cannot be started at all; the message holds the end of their stderr."""


def in_worker() -> bool:
    """Whether this process is a grader's worker, which may be killed at any time."""
    return _in_worker


def _start_worker(stderr_path: str) -> None:
    """Set a worker's limits; pebble calls this once in every new process."""
    global _in_worker
    _in_worker = True
    stderr = os.open(stderr_path, os.O_WRONLY | os.O_APPEND)
    os.dup2(stderr, 1)  # stdout too
    os.dup2(stderr, 2)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, even inside C code
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    import scipy.optimize  # noqa: F401  (boxes.py uses it; the import is not timed)


def _run_limited(
    function: Callable[..., Any], args: Sequence[Any], timeout_s: float, prepare: Prepare
) -> Any:
    """Call a function inside a worker, which the kernel ends after `timeout_s`."""
    if prepare:
        prepare()
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        return function(*args)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class _WorkerProcess(SpawnProcess):
    """A spawned process that does not import its parent's main module, because a script without
    `if __name__ == "__main__"` would run again. The type stubs lack multiprocessing's `_Popen`.
    """

    _lock = threading.Lock()

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        with _WorkerProcess._lock:
            main = sys.modules["__main__"]
            sys.modules["__main__"] = ModuleType("__main__")
            try:
                return SpawnProcess._Popen(process_obj)  # pyright: ignore[reportAttributeAccessIssue]
            finally:
                sys.modules["__main__"] = main


class WorkerContext(SpawnContext):
    """Spawns processes that do not import the main module of their parent."""

    Process = _WorkerProcess


class GraderPool(AbstractContextManager["GraderPool"]):
    """Workers that call functions under a time limit. Use it in a `with` block, or call `close`."""

    def __init__(self, num_workers: int, timeout_s: float) -> None:
        self.num_workers, self.timeout_s = num_workers, timeout_s
        self.num_killed = 0  # calls that timed out or whose worker died
        descriptor, path = tempfile.mkstemp(prefix="difftrain-graders-")
        os.close(descriptor)
        self._stderr_path = Path(path)
        self._pool = self._start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers."""
        self._stop()
        self._stderr_path.unlink(missing_ok=True)

    def prepare_workers(self, prepare: Callable[[], None]) -> None:
        """Let the workers call `prepare`, a slow import for example, before they are needed."""
        for _ in range(self.num_workers):
            self._pool.schedule(prepare)

    def run(
        self, function: Callable[..., Any], calls: Sequence[Sequence[Any]], prepare: Prepare = None
    ) -> list[Any | GradeFailure]:
        """The results of `function` for each tuple of arguments in `calls`, in the same order.

        `function` and `prepare` must be importable by name, arguments and results be picklable. A
        worker calls `prepare`, a slow import for example, before each call, outside of its time
        limit. Raises GraderPoolError if no worker can be started.
        """
        results: dict[int, Any] = {}
        failed_starts = 0
        while pending := {i: args for i, args in enumerate(calls) if i not in results}:
            finished = dict(self._finished_calls(function, pending, prepare))
            results |= finished
            if len(finished) == len(pending):
                break
            failed_starts = 0 if finished else failed_starts + 1
            if failed_starts >= MAX_FAILED_STARTS:
                stderr = self._stderr_path.read_text(errors="replace")[-STDERR_CHARS:].strip()
                raise GraderPoolError(f"graders cannot be started: {stderr}")
            self._stop()
            self._pool = self._start()
        return [results[i] for i in range(len(calls))]

    def _finished_calls(
        self, function: Callable[..., Any], calls: Mapping[int, Sequence[Any]], prepare: Prepare
    ) -> Iterator[tuple[int, Any]]:
        """Yields (index, result) of each call; stops early if the pool breaks."""
        call_limit_s = self.timeout_s + GRACE_S + (START_TIMEOUT_S if prepare else 0.0)
        futures = {}
        try:
            for i, args in calls.items():
                call = function, args, self.timeout_s, prepare
                futures[i] = self._pool.schedule(_run_limited, call, timeout=call_limit_s)
        except RuntimeError:  # a worker died while idle
            return
        for i, future in futures.items():
            try:
                error = future.exception(START_TIMEOUT_S + call_limit_s)
            except TimeoutError:  # a worker died between taking the call and reporting it
                return
            if isinstance(error, BrokenProcessPool):
                return
            yield i, self._failure(error) if error else future.result()

    def _failure(self, error: BaseException) -> GradeFailure:
        self.num_killed += 1
        killed_by_sigalrm = isinstance(error, ProcessExpired) and error.exitcode == -signal.SIGALRM
        if killed_by_sigalrm or isinstance(error, TimeoutError):
            return GradeFailure.timed_out
        logger.warning("a grader died: %s: %s", type(error).__name__, error)
        return GradeFailure.died

    def _start(self) -> ProcessPool:
        args = (str(self._stderr_path),)
        pool = ProcessPool(
            self.num_workers, initializer=_start_worker, initargs=args, context=WorkerContext()
        )
        pool.schedule(in_worker)  # pebble starts workers at the first call
        return pool

    def _stop(self) -> None:
        self._pool.stop()
        self._pool.join()
