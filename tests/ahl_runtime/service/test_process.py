"""`ahl-runtime serve` as a process: started, asked, stopped, killed at any moment."""

import http.client
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest

from tests.ahl_runtime.support import lines, rows, until

RUNTIME = Path(sys.executable).with_name("ahl-runtime")
KILLS = int(os.environ.get("AHL_TEST_KILLS", "50"))


class Served:
    """A running process. `url`: as its log says."""

    def __init__(self, folder: Path, *arguments: object, env: dict[str, str] | None = None) -> None:
        self.log = folder / f"log.{time.monotonic_ns()}"
        with self.log.open("wb") as errors:
            self.process = subprocess.Popen(
                [RUNTIME, "serve", *map(str, arguments)],
                cwd=folder,
                stderr=errors,
                env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
            )

    def url(self) -> str:
        def found() -> str | None:
            assert self.process.poll() is None, self.log.read_text()
            return next((str(e["url"]) for e in self.entries() if e["message"] == "serving"), None)

        return str(until(found, 60))

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}")]

    def ask(self, path: str) -> Any:
        with urllib.request.urlopen(self.url() + path, timeout=20) as answer:
            return json.load(answer)

    def status(self, path: str) -> int:
        try:
            with urllib.request.urlopen(self.url() + path, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            return refused.code

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(40)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    with ExitStack() as stack:

        def start(*arguments: object, **options: Any) -> Served:
            running = Served(tmp_path, *arguments, **options)
            stack.callback(lambda: running.process.poll() is None and (running.process.kill(), running.process.wait()))
            return running

        yield start


@pytest.fixture
def settings(tmp_path: Path, bundle_path: Path) -> Path:
    """A folder, a file of JSON lines, any port."""
    (tmp_path / "in").mkdir()
    path = tmp_path / "line.toml"
    path.write_text(
        f"""
[model]
bundle = "{bundle_path}"
threads = 1
[[source]]
name = "in"
kind = "folder"
path = "in"
every = 0.02
settle = 0.0
[[source]]
name = "default"
kind = "push"
[[sink]]
name = "file"
kind = "jsonl"
path = "out.jsonl"
retry = 0.05
[http]
port = 0
"""
    )
    return path


def put(cells: list[Path], folder: Path, count: int, first: int = 0) -> list[str]:
    names = [f"{first + i:05d}.png" for i in range(count)]
    for i, name in enumerate(names):
        shutil.copy(cells[i % len(cells)], folder / f".{name}")
        (folder / f".{name}").rename(folder / name)
    return names


def all_delivered(folder: Path, names: list[str], answered: Sequence[str] = ()) -> None:
    """Each file has exactly one decision, each frame sent over HTTP at most one, and one where an answer came; the sink
    has each of them, in order but for repeats.
    """
    stored = rows(folder / "line.sqlite", "SELECT id, source, frame FROM decisions ORDER BY rowid")
    assert sorted(row["frame"] for row in stored if row["source"] == "in") == sorted(names)
    sent = [row["frame"] for row in stored if row["source"] == "default"]
    assert len(set(sent)) == len(sent)
    assert set(answered) <= {row["id"] for row in stored}
    order = list(dict.fromkeys(line["id"] for line in lines_of(folder)))
    assert order == [row["id"] for row in stored]


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """A kill may have left a line half written: it came again."""
    found = []
    path = folder / "out.jsonl"
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def test_flags_are_enough(served: Callable[..., Served], bundle_path: Path, tmp_path: Path, cells: list[Path]) -> None:
    (tmp_path / "in").mkdir()
    line = served("--bundle", bundle_path, "--source", "folder:in", "--port", 0, "--threads", 2, "--one-by-one")
    url = line.url()
    put(cells, tmp_path / "in", 3)
    until(lambda: line.ask("/v1/state")["sources"][0]["frames"] == 3)
    status = subprocess.run([RUNTIME, "status", "--url", url], capture_output=True, text=True, check=False)
    assert status.returncode == 0 and "source folder1: live, watching in" in status.stdout, status
    assert line.end() == 0
    assert line.entries()[-1]["message"] == "stopped" and line.entries()[-1]["all_stored"] is True
    gone = subprocess.run([RUNTIME, "status", "--url", url], capture_output=True, text=True, check=False)
    assert gone.returncode == 2 and "does ahl-runtime serve run there?" in gone.stderr


def test_systemd_is_notified(served: Callable[..., Served], settings: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(60)
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
        line = served("--config", settings, env=env)
        assert [listening.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        assert line.end() == 0
        while listening.recv(100) != b"STOPPING=1":
            pass


class Sender:
    """Sends one frame after the other to a server that comes and goes; a frame without an answer is not sent again.

    `answered`: the ids in the answers. `cut`: frames that were on their way when the server died.
    """

    def __init__(self, port: int, body: bytes) -> None:
        self.answered: list[str] = []
        self.cut = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(f"http://127.0.0.1:{port}/v1/score?frame=", body))

    def _run(self, url: str, body: bytes) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            request = urllib.request.Request(f"{url}{number}", body, {"Content-Type": "image/png"})
            try:
                with urllib.request.urlopen(request, timeout=20) as answer:
                    self.answered.append(json.load(answer)["id"])
            except (http.client.HTTPException, OSError, ValueError) as error:
                self.cut += "refused" not in str(error)
                self._over.wait(0.02)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.mark.slow
def test_killed_at_random_moments(
    served: Callable[..., Served], settings: Path, tmp_path: Path, cells: list[Path]
) -> None:
    """Two kills of three fall while it starts, the others while it serves; files and requests come all the while."""
    chance = random.Random(0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    start = time.monotonic()
    line = served("--config", settings, "--port", port)
    line.url()
    takes = time.monotonic() - start
    line.end(signal.SIGKILL)
    names: list[str] = []
    with Sender(port, cells[0].read_bytes()) as sender:
        for kill in range(1, KILLS):
            line = served("--config", settings, "--port", port)
            names += put(cells, tmp_path / "in", 10, len(names))
            if kill % 3:
                time.sleep(chance.uniform(0.0, takes))
            else:
                line.url()
                names += put(cells, tmp_path / "in", 10, len(names))
                time.sleep(chance.uniform(0.0, 0.5))
            line.end(signal.SIGKILL)
    assert sender.cut and sender.answered  # else no kill fell into the work
    line = served("--config", settings, "--port", port)
    line.url()
    until(lambda: len(rows(tmp_path / "line.sqlite", "SELECT * FROM decisions WHERE source = 'in'")) >= len(names), 60)
    assert line.end() == 0  # which tells the sink what waits
    all_delivered(tmp_path, names, sender.answered)


@pytest.mark.slow
def test_a_full_disk(served: Callable[..., Served], settings: Path, tmp_path: Path, cells: list[Path]) -> None:
    """The system refuses to let any file of the process grow, then lets it again."""
    line = served("--config", settings)
    line.url()
    names = put(cells, tmp_path / "in", 10)
    until(lambda: len(lines(tmp_path / "out.jsonl")) == 10)
    free = resource.prlimit(line.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(line.process.pid, resource.RLIMIT_FSIZE, (4096, free[1]))
    names += put(cells, tmp_path / "in", 60, 10)
    until(lambda: line.status("/readyz") == 503)  # the store of decisions; a sink's may have been refused before it
    assert [f for f in line.ask("/v1/state")["faults"] if "line.sqlite" in f]
    resource.prlimit(line.process.pid, resource.RLIMIT_FSIZE, free)
    until(lambda: len(lines(tmp_path / "out.jsonl")) >= 70, 60)
    assert line.ask("/readyz") == {"status": "ok"}
    assert line.end() == 0
    all_delivered(tmp_path, names)


@pytest.mark.slow
def test_a_clock_that_jumps(served: Callable[..., Served], settings: Path, tmp_path: Path, cells: list[Path]) -> None:
    """libfaketime moves the process's wall clock ten years on and back, under its feet."""
    library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
    assert library is not None, "apt-get install faketime"
    clock = tmp_path / "clock"
    clock.write_text("+0")
    env = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
    }
    line = served("--config", settings, env=env)
    line.url()
    names: list[str] = []
    for i, jump in enumerate(("+0", "+3650d", "-3650d", "+0")):
        clock.write_text(jump)
        names += put(cells, tmp_path / "in", 10, 10 * i)
        until(lambda i=i: len(lines(tmp_path / "out.jsonl")) == 10 * (i + 1), 60)
    years = {row["decided"][:4] for row in rows(tmp_path / "line.sqlite", "SELECT decided FROM decisions")}
    assert len(years) == 3
    assert not line.ask("/v1/state")["faults"]
    assert line.end() == 0
    all_delivered(tmp_path, names)
