"""Notify systemd that the service is ready, alive or stopping."""

from __future__ import annotations

import os
import socket


class Notify:
    """Sends datagrams to $NOTIFY_SOCKET, if it is set. `interval`: seconds between watchdog messages, or None."""

    def __init__(self) -> None:
        self._path = os.environ.get("NOTIFY_SOCKET", "")
        micros, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
        mine = not pid or pid == str(os.getpid())
        self.interval = int(micros) / 2e6 if self._path and mine and micros.isdigit() else None

    def send(self, text: str) -> None:
        """Send a state such as "READY=1"; errors are ignored."""
        if not self._path:
            return
        address = f"\0{self._path[1:]}" if self._path.startswith("@") else self._path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
                sending.sendto(text.encode(), address)
        except OSError:
            return  # the line continues without systemd
