"""Clients that score one file over HTTP. Each keeps its own connection open and sends as fast as the server answers.

python -m benchmarks.speed.clients URL FILE CLIENTS SECONDS prints one JSON object.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

_WARM = 2  # requests of each client that are not counted


def run(url: str, body: bytes, clients: int, seconds: float) -> dict[str, object]:
    """`frames_per_second` of all clients, and the `milliseconds` of each request. RuntimeError if a request fails."""
    address = urlsplit(url)

    def work(end: float) -> list[float]:
        connection = HTTPConnection(str(address.hostname), address.port, timeout=30)
        taken: list[float] = []
        while not taken or time.perf_counter() < end:
            started = time.perf_counter()
            connection.request("POST", "/v1/score", body, {"Content-Type": "image/png"})
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{answer.status}: {content[:300].decode(errors='replace')}")
            taken.append(1000 * (time.perf_counter() - started))
        connection.close()
        return taken

    with ThreadPoolExecutor(clients) as pool:
        for _ in range(_WARM):
            list(pool.map(work, [0.0] * clients))
        started = time.perf_counter()
        taken = [ms for own in pool.map(work, [started + seconds] * clients) for ms in own]
        return {"frames_per_second": len(taken) / (time.perf_counter() - started), "milliseconds": taken}


if __name__ == "__main__":
    found = run(sys.argv[1], Path(sys.argv[2]).read_bytes(), int(sys.argv[3]), float(sys.argv[4]))
    sys.stdout.write(json.dumps(found))
