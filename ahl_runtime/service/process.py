"""Run `ahl-runtime serve`: a line and its HTTP server, until a signal stops them or a thread fails."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType

from ahl_runtime.core import memory
from ahl_runtime.http.app import build
from ahl_runtime.http.server import Server, listen
from ahl_runtime.http.settings import check_exposure
from ahl_runtime.line.line import Line
from ahl_runtime.service import log as logs
from ahl_runtime.service.config import ServiceConfig
from ahl_runtime.service.systemd import Notify

log = logging.getLogger(__name__)
_LOOK = 1.0  # seconds between health checks
_STOP = 20.0  # seconds for the line to stop
UNHEALTHY = 70  # exit code: restart the process


def run(config: ServiceConfig) -> int:
    """Run until SIGTERM or SIGINT: 0. UNHEALTHY if a thread failed or hangs. RuntimeFault if the line cannot start."""
    logs.setup(config.log.level)
    memory.give_back()
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    notify = Notify()
    check_exposure(config.http, config.http.token())
    with listen(config.http) as listening:  # before the store is touched: another line may run here
        line = Line(config)
        app = build(line, config.http)
        with Server(app.asgi, config.http, app.stop, listening) as server:
            line.start()
            model = line.model
            log.info("serving", extra={"url": server.url, "bundle": str(model.path), "engine": model.engine})
            notify.send("READY=1")
            healthy = True
            while healthy and not stop.wait(min(notify.interval or _LOOK, _LOOK)):
                healthy = line.healthy and server.alive
                if healthy:
                    notify.send("WATCHDOG=1")
            notify.send("STOPPING=1")
            if not healthy:
                log.critical("the service cannot continue", extra={"reason": line.failure or "a thread hangs"})
            stored = line.stop(_STOP)
    log.info("stopped", extra={"all_stored": stored})
    return 0 if healthy else UNHEALTHY
