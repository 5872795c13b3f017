"""Measure scoring functions, each in its own process. They take turns, so that all run under the same conditions.

`serve` runs in the measured process and `Worker` in the measuring one. They exchange lines of JSON over stdin and
stdout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

import numpy as np

from ahl_runtime.core.errors import BenchError

# For a number of threads (None for every core), make a function that scores one frame and runs in any thread.
Make = Callable[[int | None], Callable[[], object]]
Command = Callable[..., Any]
ONE = "1 session of 1 thread"
_WARM = 3  # frames before each measurement, to fill the caches that other processes emptied


@dataclass(frozen=True)
class Spread:
    """A median and its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """The median and the quartiles of at least one value."""
        low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
        return cls(float(median), float(low), float(high))


def milliseconds(score: Callable[[], object], seconds: float) -> list[float]:
    """Score for `seconds`, at least 3 frames. Returns the time of each frame in milliseconds."""
    for _ in range(_WARM):
        score()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        score()
        taken.append(1000 * (time.perf_counter() - start))
    return taken


def throughput(sessions: Sequence[Callable[[], object]], seconds: float) -> float:
    """Frames per second of sessions that score in parallel, each in its own thread."""
    for session in sessions:
        session()
    start = time.perf_counter()

    def work(session: Callable[[], object]) -> int:
        frames = 0
        while frames == 0 or time.perf_counter() < start + seconds:
            session()
            frames += 1
        return frames

    with ThreadPoolExecutor(len(sessions)) as pool:
        frames = sum(pool.map(work, sessions))
    return frames / (time.perf_counter() - start)


def memory(process: int | None = None) -> dict[str, float | None]:
    """Resident memory of a process (default: this one), now and at its peak, in MB. None if the system is not Linux."""
    found: dict[str, float | None] = {"rss_mb": None, "rss_peak_mb": None}
    try:
        lines = Path(f"/proc/{process or 'self'}/status").read_text().splitlines()
    except OSError:
        return found
    sizes = {key: rest.split() for key, _, rest in (line.partition(":") for line in lines)}
    for name, field in (("rss_mb", "VmRSS"), ("rss_peak_mb", "VmHWM")):
        found[name] = int(sizes[field][0]) * 1024 / 1e6
    return found


def serve(make: Make, expected: type[Exception] | tuple[type[Exception], ...], **more: Command) -> None:
    """Answer the commands of a Worker until it closes stdin. `more`: further commands, by name.

    An `expected` error is sent to the Worker. Any other error ends this process with its traceback.
    """
    # Libraries may write on stdout, so send stdout to stderr and keep the original for answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    session = lru_cache(None)(lambda number, threads: make(threads))
    commands: Mapping[str, Command] = {
        "single": lambda seconds, threads=None: milliseconds(session(0, threads), seconds),
        "saturated": lambda sessions, threads, seconds: throughput(
            [session(number, threads) for number in range(sessions)], seconds
        ),
        "memory": memory,
        **more,
    }
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = {"answer": commands[asked.pop("do")](**asked)}
        except expected as error:
            answer = {"error": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class Worker:
    """A process that runs `serve`: the Python module `module` with its arguments."""

    def __init__(self, name: str, module: str, *arguments: object) -> None:
        self.name = name
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed in __exit__)
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )

    def ask(self, do: str, **given: Any) -> Any:
        """The answer to the command `do`. BenchError if the process answers with an error, or ends."""
        asked, answers = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        try:
            asked.write(json.dumps({"do": do, **given}) + "\n")
            asked.flush()
            line = answers.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            self._stderr.seek(0)
            lines = self._stderr.read().decode(errors="replace").strip().splitlines() or ["without a message"]
            raise BenchError(f"{self.name}: its process ended with code {code} ({lines[-1][:300]}): is memory short?")
        answer = json.loads(line)
        if "error" in answer:
            raise BenchError(f"{self.name}: {answer['error']}")
        return answer["answer"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()  # the process has nothing to save
        self._process.communicate()
        self._stderr.close()


@dataclass
class Timed:
    """The measurements of one worker by `in_turn`. `rounds`: times in ms, one list for each round."""

    name: str
    rounds: list[list[float]]
    saturated: dict[str, list[float]]  # for each way to saturate the machine: frames per second of each round
    memory: dict[str, float | None]

    @property
    def ms(self) -> Spread:
        """Time of a frame in ms."""
        return Spread.of(self.all)

    @property
    def all(self) -> list[float]:
        return [ms for taken in self.rounds for ms in taken]

    @property
    def best(self) -> tuple[str, Spread]:
        """The way to saturate the machine that gives the most frames per second, and that rate."""
        found = {how: Spread.of(values) for how, values in self.saturated.items()}
        how = max(found, key=lambda key: found[key].median)
        return how, found[how]

    def figures(self) -> dict[str, Any]:
        """The figures by name, JSON-able."""
        how, best = self.best
        return {
            "score_ms_p50": self.ms.median,
            "score_ms_iqr": [self.ms.low, self.ms.high],
            "score_ms_p99": float(np.quantile(self.all, 0.99)),
            "frames": len(self.all),
            "frames_per_second": best.median,
            "frames_per_second_iqr": [best.low, best.high],
            "saturated_by": how,
            "saturated": {how: asdict(Spread.of(values)) for how, values in self.saturated.items()},
            **self.memory,
        }


def in_turn(workers: Sequence[Worker], seconds: float, rounds: int, cores: int) -> list[Timed]:
    """Measure all workers in each round: single stream, then saturated, `seconds` in total for each. BenchError."""
    found = [Timed(worker.name, [], {}, {}) for worker in workers]
    ways = {f"{cores} sessions of 1 thread" if cores > 1 else ONE: {"sessions": cores, "threads": 1}}
    if cores > 1:
        ways |= {f"1 session of {cores} threads": {"sessions": 1, "threads": cores}, ONE: {"sessions": 1, "threads": 1}}
    for _ in range(rounds):
        for worker, own in zip(workers, found, strict=True):
            own.rounds.append(worker.ask("single", seconds=seconds / rounds))
            own.memory = own.memory or worker.ask("memory")  # before further sessions are loaded
    for _ in range(rounds):
        for how, given in ways.items():
            for worker, own in zip(workers, found, strict=True):
                own.saturated.setdefault(how, []).append(worker.ask("saturated", seconds=seconds / rounds, **given))
    return found
