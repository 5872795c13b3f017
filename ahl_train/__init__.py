"""The workstation: from images to the unified model g.

    import ahl_train

    run = ahl_train.train("images/", "runs/first", shots=10)
    print(ahl_train.evaluate(run).auroc)

Every failure is a `TrainError`.
"""

from typing import TYPE_CHECKING

from ahl_runtime.core import lazy

if TYPE_CHECKING:
    from ahl_train.api import evaluate, load_run, train
    from ahl_train.config import TrainConfig
    from ahl_train.errors import ConfigError, DataError, RunError, TrainError, WeightsError
    from ahl_train.evaluation import Evaluation
    from ahl_train.run import Run

    __version__: str

__all__ = [
    "ConfigError",
    "DataError",
    "Evaluation",
    "Run",
    "RunError",
    "TrainConfig",
    "TrainError",
    "WeightsError",
    "evaluate",
    "load_run",
    "train",
]

__getattr__, __dir__ = lazy.door(
    __name__,
    {
        **dict.fromkeys(("ConfigError", "DataError", "RunError", "TrainError", "WeightsError"), "ahl_train.errors"),
        **dict.fromkeys(("evaluate", "load_run", "train"), "ahl_train.api"),
        "Evaluation": "ahl_train.evaluation",
        "Run": "ahl_train.run",
        "TrainConfig": "ahl_train.config",
    },
    extra="train",
)
