"""`make soak`: run `ahl-runtime serve` for minutes with three sources and 20 frames/s in total, on loopback only.

A camera (MJPEG over HTTP), a folder and a client of `/v1/score` send images of solar cells. A file of JSON lines and a
subscriber of a Mosquitto broker receive the decisions. At the end every frame must have its decision. The result goes
into docs/results/reliability.md. pytest does not collect this file, because it runs for minutes.
"""

import io
import json
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import elpv_dataset
import numpy as np
import typer
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from PIL import Image

from ahl_runtime.cli import console
from ahl_runtime.core.machine import machine
from ahl_runtime.tuning import measure
from ahl_train.benchmark.page import write_into

MARKERS = ("<!-- soak: written by `make soak` -->", "<!-- /soak -->")
RATES = {"camera": 10.0, "folder": 5.0, "push": 5.0}  # frames per second
GROWTH = 10_000_000  # the largest allowed growth of memory after the first minute, in bytes
MOSQUITTO = "/usr/sbin/mosquitto"
CELLS = sorted((Path(elpv_dataset.__path__[0]) / "data" / "images").glob("*.png"))[:400]


class SoakError(Exception):
    """The reason why the soak failed, in one line."""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def until(happened: Callable[[], Any], what: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            raise SoakError(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)


def paced(rate: float, over: threading.Event) -> Iterator[int]:
    """Yield 0, 1, ... at `rate` per second until `over`. If the caller is late, no number is skipped."""
    start, number = time.monotonic(), 0
    while not over.wait(max(0.0, start + number / rate - time.monotonic())):
        yield number
        number += 1


@dataclass
class Sent:
    """The frames of the three senders. `files`: wall-clock time in seconds, by the name of the file."""

    over: threading.Event = field(default_factory=threading.Event)
    files: dict[str, float] = field(default_factory=dict)
    answered: dict[str, float] = field(default_factory=dict)  # id to seconds until the answer
    refused: list[str] = field(default_factory=list)
    faults: set[str] = field(default_factory=set)  # all faults that the line reported

    def folder(self, place: Path) -> None:
        for number in paced(RATES["folder"], self.over):
            name = f"{number:06d}.png"
            (place / f".{name}").write_bytes(CELLS[number % len(CELLS)].read_bytes())
            self.files[name] = time.time()
            (place / f".{name}").rename(place / name)

    def push(self, url: str) -> None:
        for number in paced(RATES["push"], self.over):
            body = CELLS[number % len(CELLS)].read_bytes()
            headers = {"Content-Type": "image/png"}
            request = urllib.request.Request(f"{url}/v1/score?source=push&frame={number}", body, headers)
            start = time.monotonic()
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    self.answered[json.load(answer)["id"]] = time.monotonic() - start
            except OSError as error:
                self.refused.append(str(error))

    @contextmanager
    def camera(self) -> Iterator[str]:
        """Serve an MJPEG stream and yield its address."""
        bodies = []
        for cell in CELLS:
            out = io.BytesIO()
            Image.open(cell).convert("RGB").save(out, "JPEG", quality=92)
            bodies.append(out.getvalue())
        over = self.over

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                for number in paced(RATES["camera"], over):
                    body = bodies[number % len(bodies)]
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
                    self.wfile.write(head.encode() + body + b"\r\n")

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


@contextmanager
def broker(port: int) -> Iterator[None]:
    with subprocess.Popen([MOSQUITTO, "-p", str(port)], stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: not socket.socket().connect_ex(("127.0.0.1", port)), "the broker listens")
            yield
        finally:
            process.terminate()


@contextmanager
def subscriber(port: int) -> Iterator[list[tuple[float, dict[str, Any]]]]:
    """Subscribe at the broker. Yields a growing list of the time and content of each message."""
    heard: list[tuple[float, dict[str, Any]]] = []
    ready = threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.on_message = lambda _, __, message: heard.append((time.time(), json.loads(message.payload)))
    client.on_subscribe = lambda *_: ready.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    client.subscribe("soak/#", qos=1)
    until(ready.is_set, "the subscriber listens")
    yield heard
    client.disconnect()
    client.loop_stop()


def settings(folder: Path, bundle: Path, camera: str, http: int, mqtt: int) -> Path:
    (folder / "in").mkdir()
    path = folder / "line.toml"
    path.write_text(
        f"""
[model]
bundle = "{bundle.absolute()}"
[[source]]
name = "camera"
kind = "mjpeg"
url = "{camera}"
[[source]]
name = "folder"
kind = "folder"
path = "in"
every = 0.05
settle = 0.0
done = "delete"
[[source]]
name = "push"
kind = "push"
[[sink]]
name = "file"
kind = "jsonl"
path = "out.jsonl"
[[sink]]
name = "broker"
kind = "mqtt"
host = "127.0.0.1"
port = {mqtt}
topic = "soak/{{source}}"
[http]
port = {http}
"""
    )
    return path


class Served:
    """A running `ahl-runtime serve`."""

    def __init__(self, folder: Path, config: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder / "log"
        with self._log.open("wb") as log:
            program = Path(sys.executable).with_name("ahl-runtime")
            self.process = subprocess.Popen([program, "serve", "--config", config], cwd=folder, stderr=log)
        until(self._serves, "the line serves", 120)

    def _serves(self) -> bool:
        if self.process.poll() is not None:
            raise SoakError(f"the line ended: {self._log.read_text().strip()[-500:]}")
        return '"serving"' in self._log.read_text()

    def state(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/v1/state", timeout=60) as answer:
            return dict(json.load(answer))

    def resident(self) -> int:
        """The resident memory of the process in bytes. SoakError if the system does not report it."""
        found = measure.memory(self.process.pid)["rss_mb"]
        if found is None:
            raise SoakError(f"no memory of process {self.process.pid} under /proc: run the soak on Linux")
        return int(1e6 * found)

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def load(served: Served, sent: Sent, place: Path, minutes: float) -> list[tuple[float, int]]:
    """Send frames for `minutes`. Returns the memory of the process each second: seconds since the start, bytes."""
    senders = [
        threading.Thread(target=sent.folder, args=(place,)),
        threading.Thread(target=sent.push, args=(served.url,)),
    ]
    for sender in senders:
        sender.start()
    start, memory = time.monotonic(), []
    while (now := time.monotonic() - start) < 60 * minutes:
        memory.append((now, served.resident()))
        sent.faults.update(served.state()["faults"])
        time.sleep(1.0)
    sent.over.set()
    for sender in senders:
        sender.join()
    return memory


def settled(state: dict[str, Any], sent: Sent, notified: int) -> bool:
    """Is every frame accepted and decided, and has the subscriber received every decision (`notified`)?"""
    decided = sum(s["passed"] + s["unsure"] + s["rejected"] for s in state["sources"])
    accepted = {s["name"]: s["frames"] - s["dropped"] for s in state["sources"]}
    return bool(accepted["folder"] == len(sent.files) and sum(accepted.values()) == decided == notified)


def grown(memory: Sequence[tuple[float, int]]) -> tuple[int, int]:
    """Memory in bytes after one minute (median of ten seconds), and the largest value after that."""
    first = [value for at, value in memory if 55 <= at < 65] or [memory[-1][1]]
    return int(np.median(first)), max([value for at, value in memory if at >= 60] or first)


def account(folder: Path, state: dict[str, Any], sent: Sent, heard: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Count frames without exactly one decision, and decisions that a sink did not receive, by place."""
    with closing(sqlite3.connect(folder / "line.sqlite")) as db:
        stored = db.execute("SELECT id, source, frame FROM decisions ORDER BY rowid").fetchall()
    ids = [row[0] for row in stored]
    written = [json.loads(line)["id"] for line in (folder / "out.jsonl").read_text().splitlines()]
    names = [frame for _, source, frame in stored if source == "folder"]
    lost = {
        "files without their decision": len(set(sent.files) - set(names)),
        "files decided on twice": len(names) - len(set(names)),
        "answers without a decision": len(set(sent.answered) - set(ids)),
        "missing in the file": len(set(ids) - set(written)),
        "missing at the subscriber": len(set(ids) - {message["id"] for message in heard}),
    }
    for source in state["sources"]:
        count = sum(name == source["name"] for _, name, _ in stored)
        lost[f"{source['name']}: accepted and not stored"] = source["frames"] - source["dropped"] - count
    return lost


def percentiles(seconds: Sequence[float]) -> str:
    if not seconds:
        return "–"
    p50, p99 = np.percentile(seconds, [50, 99])
    return f"{1000 * p50:.0f} ms, {1000 * p99:.0f} ms"


def run(bundle: Path, minutes: float, folder: Path) -> tuple[str, list[str]]:
    """Run the soak. Returns the table, and the limits that were missed."""
    sent, http, mqtt = Sent(), free_port(), free_port()
    with broker(mqtt), subscriber(mqtt) as arrived, sent.camera() as camera:
        served = Served(folder, settings(folder, bundle, camera, http, mqtt), http)
        try:
            memory = load(served, sent, folder / "in", minutes)
            until(
                lambda: settled(served.state(), sent, len({m["id"] for _, m in arrived})),
                "all decisions at the subscriber",
            )
            state, code = served.state(), served.end()
        finally:
            sent.over.set()
            served.process.kill()
    found = account(folder, state, sent, [message for _, message in arrived])
    counts = {s["name"]: s["frames"] for s in state["sources"]}
    dropped, total = sum(s["dropped"] for s in state["sources"]), sum(counts.values())
    rate, (first, most) = total / (60 * minutes), grown(memory)
    waited: dict[str, list[float]] = {"camera": [], "folder": []}
    for at, message in arrived:
        if message["source"] == "camera":
            waited["camera"].append(at - datetime.fromisoformat(message["captured"]).timestamp())
        elif message["source"] == "folder":
            waited["folder"].append(at - sent.files[message["frame"]])
    missed = [f"{count} {what}" for what, count in found.items() if count]
    missed += [f"{dropped} frames dropped"] if dropped else []
    missed += [f"{len(sent.refused)} requests refused: {sent.refused[0]}"] if sent.refused else []
    missed += [f"{rate:.1f} frames/s of {sum(RATES.values()):g}"] if rate < 0.98 * sum(RATES.values()) else []
    missed += [f"memory grew by {(most - first) / 1e6:.1f} MB"] if most - first >= GROWTH else []
    missed += [f"exit code {code}"] if code else []
    missed += [f"faults: {'; '.join(sorted(sent.faults))}"] if sent.faults else []
    rows = [
        ("Time, rate", f"{minutes:g} minutes, {rate:.1f} frames/s"),
        ("Frames", f"{total:,}: {', '.join(f'{count:,} {name}' for name, count in counts.items())}"),
        ("Dropped", f"{dropped}"),
        ("Decisions lost, in the store, the file or at the subscriber", f"{sum(map(abs, found.values()))}"),
        ("Resident memory after a minute", f"{first / 1e6:.0f} MB"),
        ("Growth after that, at most", f"{max(0, most - first) / 1e6:.1f} MB"),
        ("HTTP, request to answer, p50, p99", percentiles(list(sent.answered.values()))),
        ("Camera, decoded frame to message at the subscriber, p50, p99", percentiles(waited["camera"])),
        ("Folder, new file to message at the subscriber, p50, p99", percentiles(waited["folder"])),
        ("Limits", "all held" if not missed else f"missed: {'; '.join(missed)}"),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]), missed


def origin(bundle: Path) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("ahl", "onnxruntime", "numpy", "av", "uvicorn"))
    asked = subprocess.run([MOSQUITTO, "-h"], capture_output=True, text=True, check=False).stdout
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    return (
        f"On {day}, {machine()}; {versions}; {asked.splitlines()[0]}; `{bundle.name}`, {bundle.stat().st_size:,} bytes:"
    )


def main(
    bundle: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="The .ahl file.")],
    minutes: Annotated[float, typer.Option(min=0.1, help="Time to run, in minutes.")] = 15.0,
    page: Annotated[Path | None, typer.Option(help="Write the result into this page, between its markers.")] = None,
) -> None:
    """Run a line with three sources. Exits with 1 if the line missed a limit."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            table, missed = run(bundle, minutes, Path(folder))
        except (SoakError, OSError) as error:
            console.fail(str(error))
    text = f"{origin(bundle)}\n\n{table}\n"
    typer.echo(text)
    if page is not None:
        write_into(page, text, MARKERS)
    raise typer.Exit(1 if missed else 0)


if __name__ == "__main__":
    typer.run(main)
