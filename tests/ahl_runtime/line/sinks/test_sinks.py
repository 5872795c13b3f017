"""Sinks with real receivers: a web server, Mosquitto, a Modbus device, an OPC UA client; slow, failing and gone."""

import asyncio
import json
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from ahl_runtime.line.line import Line
from tests.ahl_runtime.support import all_accounted, lines, rows, until

OUTAGE = 60.0  # seconds
BLACK, WHITE = (np.full((16, 16, 3), grey, np.uint8) for grey in (0, 255))


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def ids(line: Line) -> list[str]:
    return [row["id"] for row in rows(line.store_path, "SELECT id FROM decisions ORDER BY rowid")]


class Receiver:
    """A web server that takes messages as `answer` says: a status, after so many seconds."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.answer: Callable[[], tuple[int, float]] = lambda: (204, 0.0)
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status, seconds = receiver.answer()
                time.sleep(seconds)
                if status == 204:
                    receiver.taken.append(json.loads(body))
                    receiver.keys.append(self.headers["idempotency-key"])
                self.send_response(status)
                if status == 302:
                    self.send_header("location", "/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    threading.Thread(target=made.server.serve_forever, daemon=True).start()
    yield made
    made.server.shutdown()
    made.server.server_close()


def webhook(receiver: Receiver, **fields: object) -> dict[str, object]:
    return {"name": "hook", "kind": "webhook", "url": receiver.url, "retry": 0.05, "retry_most": 0.1, **fields}


def test_a_webhook_that_fails_gets_all_in_order(running: Callable[..., Line], receiver: Receiver) -> None:
    answers = iter([500, 302, 404, 429, 204, 503] * 3)
    receiver.answer = lambda: (next(answers, 204), 0.0)
    line = running(sink=[webhook(receiver)])
    for i in range(12):
        line.submit(BLACK if i % 2 else WHITE, None, str(i))
    until(lambda: len(receiver.taken) == 12)
    assert [m["frame"] for m in receiver.taken] == [str(i) for i in range(12)]
    assert receiver.keys == [m["id"] for m in receiver.taken] == ids(line)
    assert receiver.taken[1]["outcome"] == receiver.taken[1]["verdict"] == "reject"


def test_a_slow_sink_does_not_slow_the_line(running: Callable[..., Line], receiver: Receiver, tmp_path: Path) -> None:
    receiver.answer = lambda: (204, 0.5)
    out = tmp_path / "out.jsonl"
    line = running(sink=[webhook(receiver), {"name": "file", "kind": "jsonl", "path": out}])
    for i in range(20):
        line.submit(BLACK, None, str(i))
    until(lambda: len(lines(out)) == 20)
    assert len(receiver.taken) < 20
    receiver.answer = lambda: (204, 0.0)
    until(lambda: len(receiver.taken) == 20)


def test_unsent_messages_are_reported_and_survive_a_restart(running: Callable[..., Line], receiver: Receiver) -> None:
    receiver.answer = lambda: (500, 0.0)
    line = running(sink=[webhook(receiver)])
    for i in range(5):
        line.submit(WHITE, None, str(i))
    (fault,) = until(lambda: line.state().faults)
    assert fault.startswith("sink hook:") and "the webhook answers 500" in fault
    line.check_ready()
    assert line.stop(2.0)
    receiver.answer = lambda: (204, 0.0)
    running(sink=[webhook(receiver)])
    until(lambda: len(receiver.taken) == 5)
    assert receiver.keys == ids(line)


def test_only_what_is_asked_for(running: Callable[..., Line], receiver: Receiver) -> None:
    line = running(sink=[webhook(receiver, only=["reject"])])
    for i in range(6):
        line.submit(BLACK if i % 3 == 0 else WHITE, None, str(i))
    until(lambda: len(receiver.taken) == 2)
    assert [m["frame"] for m in receiver.taken] == ["0", "3"]


def test_a_token_is_sent(running: Callable[..., Line], receiver: Receiver, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a secret\n")
    line = running(
        sink=[webhook(receiver, token_file=tmp_path / "token"), webhook(receiver, name="b", token_file="no")]
    )
    line.submit(WHITE, None, "")
    until(lambda: receiver.taken)
    (fault,) = until(lambda: line.state().faults)
    assert "sink b" in fault and "No such file" in fault and "secret" not in fault


@contextmanager
def broker(port: int, folder: Path) -> Iterator[None]:
    conf = folder / "mosquitto.conf"
    conf.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {folder}/\n"
    )
    with subprocess.Popen(["/usr/sbin/mosquitto", "-c", conf], stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: not socket.socket().connect_ex(("127.0.0.1", port)))
            yield
        finally:
            process.terminate()


@contextmanager
def subscriber(port: int, topic: str) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """A client of its own, with a session that the broker keeps."""
    heard: list[tuple[str, dict[str, Any]]] = []
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="listener", clean_session=False)
    client.on_message = lambda _, __, message: heard.append((message.topic, json.loads(message.payload)))
    ready = threading.Event()
    client.on_subscribe = lambda *_: ready.set()
    client.on_connect = lambda *_: client.subscribe(topic, qos=1)
    client.reconnect_delay_set(0.1, 0.2)  # type: ignore[arg-type]
    client.connect("127.0.0.1", port)
    client.loop_start()
    assert ready.wait(10)
    yield heard
    client.disconnect()
    client.loop_stop()


@pytest.mark.slow
def test_a_broker_that_is_down_for_a_minute(running: Callable[..., Line], tmp_path: Path) -> None:
    """Frames come all the while; another sink hears of them as ever."""
    port, out = free_port(), tmp_path / "out.jsonl"
    sink = {"name": "broker", "kind": "mqtt", "host": "127.0.0.1", "port": port, "topic": "line/{source}/{outcome}"}
    file = {"name": "file", "kind": "jsonl", "path": out}
    with broker(port, tmp_path), subscriber(port, "line/#") as heard:
        line = running(sink=[{**sink, "retry_most": 5.0, "timeout": 2.0}, file])
        for i in range(10):
            line.submit(BLACK if i % 2 else WHITE, None, str(i))
        until(lambda: len(heard) == 10)
    assert heard[1][0] == "line/default/reject" and heard[0][0] == "line/default/pass"
    count, until_back = 10, time.monotonic() + OUTAGE
    while time.monotonic() < until_back:
        line.submit(WHITE, None, str(count))
        count += 1
        time.sleep(0.1)
    (fault,) = line.state().faults
    assert fault.startswith("sink broker: ") and ("cannot be reached" in fault or "acknowledge" in fault)
    until(lambda: len(lines(out)) == count)
    with broker(port, tmp_path), subscriber(port, "line/#") as after:
        until(lambda: len({m["id"] for _, m in [*heard, *after]}) == count, 60)
        until(lambda: not line.state().faults)
        order = list(dict.fromkeys(m["id"] for _, m in [*heard, *after]))
    assert order == ids(line)
    assert all_accounted(line, out) == count


@contextmanager
def plc(port: int) -> Iterator[Callable[[str, int, int], list[Any]]]:
    """A Modbus device; gives a reader of its holding registers ("h") and coils ("c")."""
    from pymodbus.client import ModbusTcpClient
    from pymodbus.server import ModbusTcpServer
    from pymodbus.simulator import DataType, SimData, SimDevice

    loop = asyncio.new_event_loop()
    ready = threading.Event()
    server: list[Any] = []

    async def serve() -> None:
        device = SimDevice(
            id=1,
            simdata=(
                [SimData(0, values=[False] * 16, datatype=DataType.BITS)],
                [SimData(0, values=[False] * 16, datatype=DataType.BITS)],
                [SimData(0, values=0, count=100, datatype=DataType.REGISTERS)],
                [SimData(0, values=0, count=100, datatype=DataType.REGISTERS)],
            ),
        )
        server.append(ModbusTcpServer(device, address=("127.0.0.1", port)))
        await server[0].serve_forever(background=True)
        ready.set()

    thread = threading.Thread(target=lambda: (loop.run_until_complete(serve()), loop.run_forever()), daemon=True)
    thread.start()
    assert ready.wait(10)
    client = ModbusTcpClient("127.0.0.1", port=port)
    client.connect()

    def read(what: str, address: int, count: int) -> list[Any]:
        if what == "c":
            return list(client.read_coils(address, count=count).bits)
        return list(client.read_holding_registers(address, count=count).registers)

    yield read
    client.close()
    asyncio.run_coroutine_threadsafe(server[0].shutdown(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


@pytest.mark.slow
def test_a_modbus_device_gets_the_newest_and_the_ejector_fresh_rejects(running: Callable[..., Line]) -> None:
    port = free_port()
    sink = {"name": "plc", "kind": "modbus", "host": "127.0.0.1", "port": port, "address": 20, "coil": 3}
    line = running(sink=[{**sink, "retry": 0.1, "retry_most": 0.2, "fresh": 0.5}])
    line.submit(BLACK, None, "")  # no device yet: when it comes, this reject is too old for the ejector
    until(lambda: "cannot be reached" in "".join(line.state().faults))
    time.sleep(0.6)
    with plc(port) as read:
        until(lambda: read("h", 20, 2) == [0, 1])
        assert read("h", 22, 1) == [2] and read("h", 23, 1)[0] >= 5 and not read("c", 3, 1)[0]
        recorded = line.submit(BLACK, None, "")
        until(lambda: read("h", 20, 2) == [0, 2])
        assert read("c", 3, 1)[0]
        score, id = struct.unpack(">fQ", struct.pack(">6H", *read("h", 24, 6)))
        assert score == np.float32(recorded.decision.score) and f"{id:016x}" == recorded.id


@pytest.mark.slow
def test_an_opcua_client_sees_every_decision(running: Callable[..., Line]) -> None:
    from asyncua import Client

    port = free_port()
    line = running(sink=[{"name": "ua", "kind": "opcua", "port": port, "retry": 0.1}])
    first = line.submit(BLACK, None, "first")

    class Heard:
        def __init__(self) -> None:
            self.messages: list[str] = []

        def datachange_notification(self, node: object, value: str, data: object) -> None:
            self.messages.append(value)

    async def listen() -> list[str]:
        async with Client(f"opc.tcp://127.0.0.1:{port}/ahl/") as client:
            space = await client.get_namespace_index("urn:ahl:line")
            ahl = await client.nodes.objects.get_child(f"{space}:ahl")
            message = await ahl.get_child(f"{space}:Message")
            assert await (await ahl.get_child(f"{space}:Outcome")).read_value() == "reject"
            heard = Heard()
            watching = await client.create_subscription(20, heard)
            await watching.subscribe_data_change(message, queuesize=100, sampling_interval=0)
            for i in range(10):
                await asyncio.to_thread(line.submit, WHITE, None, str(i))
            for _ in range(100):
                if len(heard.messages) == 11:
                    break
                await asyncio.sleep(0.05)
            return heard.messages

    until(lambda: not socket.socket().connect_ex(("127.0.0.1", port)))
    until(lambda: line._outboxes[0].depth == 0 and not line.state().faults)
    heard = [json.loads(text) for text in asyncio.run(listen())]
    assert heard[0]["id"] == first.id
    assert [m["id"] for m in heard] == ids(line)


def test_a_new_sink_begins_now_and_an_old_one_is_forgotten(
    running: Callable[..., Line], receiver: Receiver, tmp_path: Path
) -> None:
    file = {"name": "file", "kind": "jsonl", "path": tmp_path / "out.jsonl"}
    line = running(sink=[file])
    line.submit(WHITE, None, "a")
    until(lambda: len(lines(tmp_path / "out.jsonl")) == 1)
    line.stop()
    line = running(sink=[webhook(receiver)])
    line.submit(WHITE, None, "b")
    until(lambda: receiver.taken)
    assert [m["frame"] for m in receiver.taken] == ["b"] and len(lines(tmp_path / "out.jsonl")) == 1
    assert [row["name"] for row in rows(line.store_path, "SELECT name FROM sinks")] == ["hook"]


def test_a_half_written_line_is_ended(running: Callable[..., Line], tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text('{"id": "cut sho')
    line = running(sink=[{"name": "file", "kind": "jsonl", "path": out}])
    recorded = line.submit(WHITE, None, "")
    until(lambda: out.read_text().endswith("}\n"))
    assert json.loads(out.read_text().splitlines()[1])["id"] == recorded.id
