"""Score image files one after another. Decide on each file alone, or on all files together."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ahl_runtime.core.decode import decode, iter_images
from ahl_runtime.core.errors import ImageError, OutputError, RuntimeFault
from ahl_runtime.core.types import Decision, Frame
from ahl_runtime.score.scoring import Scorer

_NO_MAP: NDArray[np.float32] = np.zeros((0, 0), np.float32)


@dataclass(frozen=True, eq=False)
class ScoredFile:
    """A file and its decision. `ms`: time of scoring alone. `image`: the pixels, or None if they were not kept."""

    path: Path
    decision: Decision
    ms: float
    image: NDArray[np.uint8] | None

    def pixels(self) -> NDArray[np.uint8]:
        """The image, decoded again if it was not kept. ImageError."""
        return decode(self.path) if self.image is None else self.image


@dataclass(frozen=True)
class FailedFile:
    """A file that could not be scored. `error`: the reason."""

    path: Path
    error: str


Result = ScoredFile | FailedFile


def find_files(given: Iterable[Path]) -> list[Path | FailedFile]:
    """The image files in these paths, in order. A folder gives all its images (`iter_images`).

    A path that does not exist, and a folder without images, give a FailedFile in their place. ImageError if no image
    file is found.
    """
    found: list[Path | FailedFile] = []
    for path in given:
        try:
            found.extend(iter_images([path]))
        except ImageError as error:
            found.append(FailedFile(path, str(error)))
    if not any(isinstance(item, Path) for item in found):
        raise ImageError("; ".join(item.error for item in found if isinstance(item, FailedFile)))
    return found


def score_files(scorer: Scorer, files: Iterable[Path | FailedFile], source: str = "") -> Iterator[Result]:
    """Score files in order. A FailedFile is passed on unchanged. `source`: by default the folder of each file."""
    for path in files:
        if isinstance(path, FailedFile):
            yield path
            continue
        try:
            frame = Frame(decode(path), id=path.name, source=source or str(path.parent))
            start = time.perf_counter()
            decision = scorer.decide(frame)
            yield ScoredFile(path, decision, 1000 * (time.perf_counter() - start), frame.image)
        except RuntimeFault as error:
            yield FailedFile(path, str(error))


def decide_together(scorer: Scorer, results: Iterable[Result], q: float, *, maps: bool) -> Iterator[Result]:
    """Decide on all results together, with false-discovery rate q (`DecisionRule.for_batch`).

    Memory holds neither pixels nor maps. If `maps` is true, a temporary file keeps the maps until all files are
    scored. ScoresError, SettingsError. OutputError if the temporary file cannot be made.
    """
    scorer.rule.for_batch([], q)  # raises an error for a wrong q before minutes of work
    with _temporary() if maps else nullcontext() as waiting:
        kept: list[Result] = []
        for result in results:
            if isinstance(result, ScoredFile):
                if waiting is not None:
                    np.save(waiting, result.decision.anomaly_map, allow_pickle=False)
                kept.append(replace(result, decision=replace(result.decision, anomaly_map=_NO_MAP), image=None))
            else:
                kept.append(result)
        rule = scorer.rule.for_batch([r.decision.score for r in kept if isinstance(r, ScoredFile)], q)
        if waiting is not None:
            waiting.seek(0)
        for result in kept:
            if isinstance(result, ScoredFile):
                decision = rule.decide_again(result.decision)
                if waiting is not None:
                    decision = replace(decision, anomaly_map=np.load(waiting, allow_pickle=False))
                yield replace(result, decision=decision)
            else:
                yield result


def _temporary() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        raise OutputError(f"no temporary file can be made ({error.strerror or error}): set TMPDIR") from error


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex. OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
