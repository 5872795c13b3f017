"""The bench of serving: HTTP and a folder source, compared with the bare session in turn. The server is a real one."""

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from ahl_export.errors import ExportError
from ahl_runtime import engines
from ahl_runtime.bundle.bundle import Bundle
from ahl_runtime.engines.base import cores
from ahl_runtime.tuning.bench_worker import frame
from ahl_runtime.tuning.measure import Spread, Worker

CLIENTS = 4
_ROUNDS = 5
_STARTS = 60.0  # seconds that a server may take
_FILES = 40  # of each round, in the folder
_BARE = "bare session"


class Served:
    """A running `ahl-runtime serve --side-by-side` on a free port of loopback, in its own folder. ExportError."""

    def __init__(self, bundle: Bundle, engine: str, folder: Path) -> None:
        self.inbox = folder / "in"
        self.inbox.mkdir()
        self._log = folder / "log"
        source = f"folder:{self.inbox}"
        command = [sys.executable, "-m", "ahl_runtime.cli.main", "serve", "--bundle", str(bundle.path.absolute())]
        command += ["--engine", engine, "--side-by-side", "--source", source, "--port", "0"]
        command += ["--store", str(folder / "line.sqlite")]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stderr=log, cwd=folder)
        self.url = self._address()

    def frames(self) -> int:
        """The number of decisions on frames of the folder."""
        with urllib.request.urlopen(f"{self.url}/v1/state", timeout=20) as answer:
            sources = json.load(answer)["sources"]
        return int(next(s["passed"] + s["unsure"] + s["rejected"] for s in sources if s["name"].startswith("folder")))

    def _address(self) -> str:
        until = time.monotonic() + _STARTS
        while time.monotonic() < until and self._process.poll() is None:
            for line in self._log.read_text().splitlines():
                if line.endswith("}") and (entry := json.loads(line))["message"] == "serving":
                    return str(entry["url"])
            time.sleep(0.05)
        self._process.kill()
        last = (self._log.read_text().strip().splitlines() or ["its log is empty"])[-1]
        raise ExportError(f"ahl-runtime serve did not start: {last}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(_STARTS)


def measure(bundle: Bundle, seconds: float, report: Callable[[str], None]) -> dict[str, Any]:
    """For each engine: frames per second of the bare session, over HTTP and from a folder, and latencies of HTTP.

    The bare session scores decoded pixels, saturated in the better of its two ways. The server decodes the file of the
    same reference frame, decides, and stores the decision on the disk before it answers. RuntimeFault, ExportError.
    """
    names = [name for name in engines.available(bundle) if not engines.on_gpu(name)]
    return {"clients": CLIENTS, "rows": {name: _one(bundle, name, seconds, report) for name in names}}


def _one(bundle: Bundle, engine: str, seconds: float, report: Callable[[str], None]) -> dict[str, Any]:
    report(f"serving: {engine}")
    part, many = seconds / _ROUNDS, cores(None)
    ways: dict[tuple[int, int], list[float]] = {(sessions, many // sessions): [] for sessions in {1, many}}
    http, watched, latencies = [], [], []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        picture = folder / "frame.png"
        picture.write_bytes(frame(bundle, engine))
        session = stack.enter_context(
            Worker(_BARE, "ahl_runtime.tuning.bench_worker", bundle.path, bundle.digest, engine)
        )
        served = stack.enter_context(Served(bundle, engine, folder))
        for number in range(_ROUNDS):
            for (sessions, threads), found in ways.items():
                found.append(session.ask("saturated", seconds=part, sessions=sessions, threads=threads))
            taken = _http(served.url, picture, part)
            http.append(taken["frames_per_second"])
            latencies += taken["milliseconds"]
            watched.append(_folder(served, picture, number))
    bare = max(ways.values(), key=np.median)  # not the best of each round, which would favour chance
    return {
        "bare_fps": _spread(bare),
        "http_fps": _spread(http),
        "folder_fps": _spread(watched),
        "http_share": _spread([h / b for h, b in zip(http, bare, strict=True)]),
        "folder_share": _spread([w / b for w, b in zip(watched, bare, strict=True)]),
        "http_ms_p50": float(np.median(latencies)),
        "http_ms_p99": float(np.quantile(latencies, 0.99)),
    }


def _http(url: str, picture: Path, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.speed.clients", url, str(picture), str(CLIENTS), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ExportError(f"the clients ended with code {done.returncode}: {done.stderr.strip()[-300:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _folder(served: Served, picture: Path, number: int) -> float:
    """Frames per second, from the first observed decision to the last."""
    data, before = picture.read_bytes(), served.frames()
    for i in range(_FILES):
        part = served.inbox / f".{number}-{i}.png"
        part.write_bytes(data)
        part.rename(served.inbox / part.name.removeprefix("."))
    seen: list[tuple[float, int]] = []
    while not seen or seen[-1][1] < before + _FILES:
        if (count := served.frames()) > (seen[-1][1] if seen else before):
            seen.append((time.perf_counter(), count))
        time.sleep(0.02)  # shorter pauses would slow the server down
    (first, began), (last, ended) = seen[0], seen[-1]
    return (ended - began) / max(last - first, 1e-9)


def _spread(values: list[float]) -> list[float]:
    spread = Spread.of(values)
    return [spread.median, spread.low, spread.high]
