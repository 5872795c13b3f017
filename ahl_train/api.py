"""The front door of training: `train`, `evaluate` and `load_run`."""

import os
from collections.abc import Callable
from typing import Any

from ahl_runtime.core.errors import RuntimeFault, raised_as
from ahl_runtime.core.files import as_path
from ahl_train import evaluation, run, training
from ahl_train.config import TrainConfig
from ahl_train.errors import ConfigError, DataError, RunError
from ahl_train.evaluation import Evaluation
from ahl_train.run import Run

AnyPath = str | os.PathLike[str]


def train(
    data: AnyPath,
    out: AnyPath,
    *,
    resume: bool = False,
    cache: AnyPath | None = None,
    device: str = "auto",
    precision: str = "auto",
    report: Callable[[str], None] = lambda line: None,
    **settings: Any,
) -> Run:
    """Learn g from the images of `data` and write it into the run folder `out`.

    `data`: ``elpv``, ``NAME:DIR`` for a published set, or a folder in MVTec AD layout. `settings`: fields of
    `TrainConfig`, such as ``shots=10, seed=0, system="ahl-density"``. `resume`: continue after the last complete epoch.
    `cache`: the folder that stores features. `device`: auto, cpu or cuda. `precision`: of features, auto, float16
    or float32. `report`: called with each line that the command would print. Raises TrainError.
    """
    if not callable(report):
        raise ConfigError(f"report is {report!r:.80}: expected a function of a line of text")
    if not isinstance(resume, bool):
        raise ConfigError(f"resume is {resume!r:.80}: expected True or False")
    as_path(data, "data", ConfigError)  # for its check: the run records the text as it was given
    config = TrainConfig.checked({**settings, "data": data})
    kept = None if cache is None else as_path(cache, "cache", RunError)
    where = {"device": device, "precision": precision}
    with raised_as(DataError, RuntimeFault):
        return training.train(config, as_path(out, "out", RunError), resume=resume, cache=kept, report=report, **where)


def evaluate(run: Run | AnyPath, *, pixel: bool = False) -> Evaluation:
    """AUROC of a finished run on its test images. `pixel`: also of the maps, if there are masks. Raises TrainError."""
    with raised_as(DataError, RuntimeFault):
        return evaluation.evaluate(run if isinstance(run, Run) else load_run(run), pixel=pixel)


def load_run(path: AnyPath) -> Run:
    """Load a finished run folder. Raises RunError or WeightsError."""
    return run.load_run(as_path(path, "the run", RunError))
