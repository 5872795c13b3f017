"""Tuning: try session options one after the other on this device, and keep each change that makes scoring faster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from ahl_runtime import engines
from ahl_runtime.bundle.bundle import Bundle
from ahl_runtime.core.decode import decode
from ahl_runtime.core.errors import BenchError
from ahl_runtime.engines import tuned
from ahl_runtime.engines.base import cores
from ahl_runtime.engines.ort import OrtEngine
from ahl_runtime.engines.tuned import SessionOptions, Tuned
from ahl_runtime.tuning.bench_worker import frame
from ahl_runtime.tuning.measure import Spread, milliseconds

ENGINES = ("onnxruntime", "onnxruntime-int8")
_ROUNDS = 5
_WORTH = 0.97  # keep a change if the time falls below this share of the time before: more than noise


@dataclass(frozen=True)
class Trial:
    """The result of one engine with one set of options. `ms`: time of a frame. `kept`: the best of its round."""

    engine: str
    options: SessionOptions
    ms: Spread
    kept: bool


def tune(bundle: Bundle, engine: str | None, seconds: float, report: Callable[[Trial], None]) -> Path:
    """Find the fastest options and write them next to the bundle. Returns the path of the file.

    `engine`: one of ENGINES, None for all of them that can run here. `seconds`: for each set of options. BenchError,
    EngineError, OutputError.
    """
    names = [name for name in engines.available(bundle) if name in ENGINES and engine in (None, name)]
    if not names:
        raise BenchError(
            f"{bundle.path}: {engine or 'no engine here'} has no session options to tune: "
            f"choose among {', '.join(ENGINES)}"
        )
    chosen = {name: _best(bundle, name, seconds, report) for name in names}
    created = datetime.now(UTC).replace(microsecond=0)
    return tuned.write(bundle.path, Tuned(bundle=bundle.digest, device=tuned.device(), created=created, engines=chosen))


def _best(bundle: Bundle, name: str, seconds: float, report: Callable[[Trial], None]) -> SessionOptions:
    model = bundle.read(engines.artefact(bundle, name).files[0])
    pixels = decode(frame(bundle, name))[None]
    best = SessionOptions(threads=cores(None))
    for changes in _changes(cores(None)):
        others = (best.model_copy(update=change) for change in changes)
        tried = [best, *(other for other in others if other != best)]
        loaded = [OrtEngine(model, name=name, options=options) for options in tried]
        taken: list[list[float]] = [[] for _ in tried]
        for _ in range(_ROUNDS):
            for engine, own in zip(loaded, taken, strict=True):
                own += milliseconds(partial(engine.infer, pixels), seconds / _ROUNDS)
        spreads = [Spread.of(own) for own in taken]
        fastest = min(range(len(tried)), key=lambda i: spreads[i].median)
        keep = fastest if spreads[fastest].median < _WORTH * spreads[0].median else 0
        for i, (options, ms) in enumerate(zip(tried, spreads, strict=True)):
            report(Trial(name, options, ms, i == keep))
        best = tried[keep]
    return best


def _changes(most: int) -> tuple[list[dict[str, Any]], ...]:
    """The changes to try, grouped by option. `most`: the number of cores."""
    return (
        [{"optimisation": "extended"}],
        [{"threads": n} for n in sorted({1, max(1, most // 2)})],
        [{"spinning": True}],
        [{"arena": False}],
    )
