"""The process that `ahl-runtime bench` starts for each engine. It measures the engine on request."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from ahl_runtime import engines
from ahl_runtime.bundle.bundle import Bundle, open_bundle
from ahl_runtime.core.decode import decode
from ahl_runtime.core.errors import BenchError, RuntimeFault
from ahl_runtime.core.types import Frame
from ahl_runtime.score.scoring import Scorer
from ahl_runtime.tuning import measure
from calibration import CalibrationError


def frame(bundle: Bundle, engine: str) -> bytes:
    """The file of the reference frame with the lowest score, as most frames of a line score low. BenchError if none."""
    found = engines.artefact(bundle, engine).reference
    if not found:
        raise BenchError(f"{bundle.path}: it has no reference frames to measure with: export it again with some")
    return bundle.read(min(found, key=lambda reference: reference.score).file)


def main(path: Path, digest: str, engine: str, threads: int | None) -> None:
    """Answer the requests of the bench. `digest`: of the bundle that the bench checked."""

    def opened() -> Bundle:
        bundle = open_bundle(path)
        if bundle.digest != digest:
            raise BenchError(f"{path}: the file was replaced during the measurement: start again")
        return bundle

    def make(own: int | None) -> Callable[[], object]:
        bundle = opened()  # freed with its bytes after loading, as in the service
        scorer, pixels = Scorer(bundle, engine, threads=own or threads), decode(frame(bundle, engine))
        return lambda: scorer.decide(Frame(pixels))

    def stages(seconds: float) -> dict[str, list[float]]:
        """Milliseconds of each frame for decoding the file, for the session, and for what follows."""
        bundle = opened()
        scorer, file = Scorer(bundle, engine, threads=threads), frame(bundle, engine)
        taken: dict[str, list[float]] = {"decode": [], "session": [], "postprocess": []}

        def score() -> None:
            times = [time.perf_counter()]
            found = Frame(decode(file))
            times.append(time.perf_counter())
            outputs = scorer.engine.infer(found.image[None])
            times.append(time.perf_counter())
            scorer.rule.decide(outputs.of(0), found)
            times.append(time.perf_counter())
            for name, start, end in zip(taken, times, times[1:], strict=False):
                taken[name].append(1000 * (end - start))

        counted = len(measure.milliseconds(score, seconds))
        return {name: values[-counted:] for name, values in taken.items()}

    measure.serve(make, (RuntimeFault, CalibrationError), stages=stages)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else None)
