"""The drift alarm of one source: it reports when frames differ from the calibration normals, and what changed."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from calibration import checks, frames
from calibration.errors import ScoresError, SettingsError, StateError
from calibration.frames import FrameStatistics
from calibration.martingale import BETS, Martingales
from calibration.threshold import Calibration

_FORMAT = 1


@dataclass(frozen=True)
class DriftReport:
    """The state of the alarm after a frame.

    `alarm`: a statistic has changed since the last reset. The alarm stays on until the next reset. `moved`: the
    changes in the order of detection, such as "brightness fell". `evidence`: the capital of each statistic as a base-10
    logarithm. The alarm starts when it reaches `limit`. `frames`: the number of frames since the last reset.
    `sentence`: one line for an operator.
    """

    alarm: bool
    moved: tuple[str, ...]
    evidence: dict[str, float]
    limit: float
    frames: int
    sentence: str


class Drift:
    """The drift alarm for one source. Use one object per source, each with its own bound.

    While frames are exchangeable with the calibration normals, the probability of any alarm between two resets is at
    most `bound`, split evenly over the statistics (martingale.py). These are the score and, if the calibration holds
    frame statistics, those of frames.NAMES. Frames that depend on each other in time (a slow cycle of the light, the
    same part twice) are not exchangeable, and give an alarm.
    """

    def __init__(self, calibration: Calibration, *, bound: float = 0.01, seed: int = 0) -> None:
        """ScoresError for fewer than 30 normals, SettingsError for a bound outside (0, 1)."""
        if not isinstance(calibration, Calibration):
            raise SettingsError(f"calibration is {calibration!r:.80}: expected a Calibration, as from fit")
        self.bound = checks.rate("bound", bound)
        if calibration.n < frames.FEWEST:
            raise ScoresError(f"{calibration.n} calibration normals: the drift alarm needs at least {frames.FEWEST}")
        self._reference = calibration.frames
        self._scores = np.random.default_rng(0).permutation(calibration.scores)
        self.names = ("score",) if self._reference is None else ("score", *frames.NAMES)
        self.limit = math.log10(len(self.names) / self.bound)
        self._rng = np.random.default_rng(seed)
        self.reset()

    def reset(self) -> None:
        """Acknowledge the alarm: forget all frames so far and start again from the calibration."""
        columns = [self._scores] if self._reference is None else [self._scores, *self._reference.values.T]
        cuts = [frames.shapers(len(column)) for column in columns]
        self._martingales = Martingales(
            [column[:cut] for column, cut in zip(columns, cuts, strict=True)],
            [column[cut:] for column, cut in zip(columns, cuts, strict=True)],
        )
        self._log_capital = np.zeros(len(columns))
        self._moved: dict[str, str] = {}
        self._key = self._digest()

    def observe(self, score: float, frame: FrameStatistics | None = None) -> DriftReport:
        """Add one frame: its score and, if the calibration holds frame statistics, the frame's statistics.

        ScoresError for a NaN or infinite score, and for frame statistics that are missing or not expected. The state is
        then unchanged.
        """
        if frame is not None:
            frames.checked(frame)
        if (frame is None) != (self._reference is None):
            without = self._reference is None
            raise ScoresError(
                f"the calibration holds {'no ' if without else ''}frame statistics: "
                f"{'do not give' if without else 'give'} those of the frame"
            )
        values = np.atleast_1d(checks.finite("score", score))
        if values.shape != (1,):
            raise ScoresError(f"score has shape {list(np.shape(score))}: expected one frame's")
        if frame is not None and self._reference is not None:
            values = np.concatenate([values, self._reference.measure(frame)])
        p = self._martingales.rank(values, self._rng.random(len(values)))
        self._log_capital = self._martingales.bet(p)
        for row, name in enumerate(self.names):
            if name not in self._moved and self._log_capital[row] >= self.limit * math.log(10.0):
                self._moved[name] = f"{name} {self._martingales.best_bet(row)}"
        return self.report()

    def report(self) -> DriftReport:
        """The state of the alarm now."""
        moved, seen = tuple(self._moved.values()), self._martingales.time
        odds = f"at most {100 * self.bound:.3g}% of unchanged lines ever alarm"
        sentence = (
            f"the line has changed: {', '.join(moved)}; look at the camera, light and parts, then reset or calibrate "
            f"again ({odds})"
            if moved
            else f"no change seen in {seen} frames ({odds})"
        )
        evidence = (self._log_capital / math.log(10.0)).tolist()
        return DriftReport(
            alarm=bool(moved),
            moved=moved,
            evidence=dict(zip(self.names, evidence, strict=True)),
            limit=self.limit,
            frames=seen,
            sentence=sentence,
        )

    def to_dict(self) -> dict[str, Any]:
        """The whole state as JSON-able values of a few kilobytes, to store it across a restart."""
        m = self._martingales
        return {
            "format": _FORMAT,
            "reference": self._key,
            "bound": self.bound,
            "frames": m.time,
            "counts": m.counts.tolist(),
            "stakes": [[None if math.isinf(v) else v for v in row] for row in m.log_capital.reshape(-1, 8).tolist()],
            "log_capital": self._log_capital.tolist(),
            "moved": dict(self._moved),
            "random": self._rng.bit_generator.state,
        }

    @classmethod
    def from_dict(cls, calibration: Calibration, state: dict[str, Any]) -> Drift:
        """The alarm from a state of `to_dict`. StateError if it is damaged or belongs to another calibration."""
        try:
            if state["format"] != _FORMAT:
                raise StateError(
                    f"drift state of format {state['format']}, this program reads {_FORMAT}: reset the alarm"
                )
            drift = cls(calibration, bound=state["bound"])
            if state["reference"] != drift._key:
                raise StateError("the drift state belongs to another calibration: reset the alarm")
            drift._restore(state)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise StateError(f"the drift state is damaged ({error!r}): reset the alarm") from error
        return drift

    def _restore(self, state: dict[str, Any]) -> None:
        m = self._martingales
        counts = np.array(state["counts"], dtype=np.float64)
        stakes = np.array([[-np.inf if v is None else v for v in row] for row in state["stakes"]], dtype=np.float64)
        capital = np.array(state["log_capital"], dtype=np.float64)
        if counts.shape != m.counts.shape or not (np.isfinite(counts).all() and (counts >= m.counts).all()):
            raise ValueError("counts")
        if stakes.size != m.log_capital.size or np.isnan(stakes).any() or (stakes == np.inf).any():
            raise ValueError("stakes")
        if capital.shape != self._log_capital.shape or not np.isfinite(capital).all():
            raise ValueError("log_capital")
        allowed = {name: {f"{name} {bet}" for bet in BETS} for name in self.names}
        if any(text not in allowed.get(name, ()) for name, text in state["moved"].items()):
            raise ValueError("moved")
        time = int(state["frames"])
        if time < 0:
            raise ValueError("frames")
        self._rng.bit_generator.state = state["random"]
        m.counts, m.log_capital, m.time = counts, stakes.reshape(m.log_capital.shape), time
        self._log_capital, self._moved = capital, dict(state["moved"])

    def _digest(self) -> str:
        digest = hashlib.sha256(self._martingales.edges.tobytes() + self._martingales.counts.tobytes())
        if self._reference is not None:
            digest.update(self._reference.template.tobytes())
        return digest.hexdigest()
