"""Runs cells of a benchmark here, in local processes or on a Ray cluster, and yields results as cells finish."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from socket import create_connection
from urllib.parse import urlsplit

import torch

from ahl_train.benchmark.results import Cell, Result
from ahl_train.errors import ConfigError, RunError

Run = Callable[[Cell], Result]
Start = Callable[[], Run]  # called once in each process: it opens what the cells need

LOCAL = "local"  # a cluster on this machine only, which ends with the benchmark


def by_processes(start: Start, cells: Sequence[Cell], jobs: int) -> Iterator[Result]:
    """``jobs`` processes of one thread each; 1: this process, with all threads. RunError if a process dies."""
    if jobs == 1:
        yield from map(start(), cells)
        return
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_start, initargs=(start,))
    try:
        for done in as_completed([pool.submit(_run, cell) for cell in cells]):
            yield done.result()
    except BrokenProcessPool as error:
        raise RunError("a process of the benchmark died, perhaps out of memory: continue with fewer --jobs") from error
    finally:
        pool.shutdown(cancel_futures=True)


def by_ray(start: Start, cells: Sequence[Cell], address: str, jobs: int | None) -> Iterator[Result]:
    """``jobs`` workers of one thread each; by default one for each core of the cluster at ``address``.

    A worker reads the dataset and stores features at the paths given here. It extracts the features that its node's
    cache lacks. ConfigError without Ray or without the cluster, RunError if a worker dies.
    """
    try:
        import ray
        from ray.exceptions import RayActorError
        from ray.util import ActorPool
    except ImportError:
        raise ConfigError("--ray needs the extra [ray]: pip install 'ahl[train,ray]'") from None
    try:
        _reach(address)
        ray.init(None if address == LOCAL else address, include_dashboard=False, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"no Ray cluster at {address!r} ({reason}): start it, or use --ray {LOCAL}") from error
    try:
        worker = ray.remote(num_cpus=1)(_Worker)
        count = min(jobs or int(ray.cluster_resources()["CPU"]), len(cells))
        pool = ActorPool([worker.remote(start) for _ in range(count)])
        yield from pool.map_unordered(lambda actor, cell: actor.run.remote(cell), list(cells))
    except RayActorError as error:
        raise RunError("a worker of the benchmark died, perhaps out of memory: continue with fewer --jobs") from error
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """OSError if nothing listens at the address. Ray itself would retry for minutes."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    if parts.port:
        create_connection((parts.hostname, parts.port), timeout=10).close()


class _Worker:
    """The state of a process on the cluster."""

    def __init__(self, start: Start) -> None:
        torch.set_num_threads(1)
        self._run = start()

    def run(self, cell: Cell) -> Result:
        return self._run(cell)


_here: Run  # in a local process


def _start(start: Start) -> None:
    global _here
    torch.set_num_threads(1)
    _here = start()


def _run(cell: Cell) -> Result:
    return _here(cell)
