"""What the bench compares with, in a process of its own.

python -m benchmarks.speed.contestant KIND [FILE] [SIDE] [PRECISION]
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ahl_runtime.core.errors import RuntimeFault
from ahl_runtime.engines.base import cores
from ahl_runtime.tuning import measure

_FRAME = 300  # px, as ELPV's cells
Score = Callable[[], object]


def _frame(side: int) -> np.ndarray:
    return np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)


def paper(threads: int | None) -> Score:
    """The paper's path, in torch, from pixels to the score."""
    import torch

    from benchmarks.speed.models import Paper

    model, image, wanted = Paper(), torch.from_numpy(_frame(_FRAME))[None], cores(threads)

    def score() -> object:
        if torch.get_num_threads() != wanted:  # each thread has its own
            torch.set_num_threads(wanted)
        with torch.inference_mode():
            return model(image)

    return score


def anomalib(threads: int | None, path: Path, side: int, precision: str = "") -> Score:
    """An anomalib export through its own inferencer, from pixels of the network's own size: no resize is counted.

    `precision`: OpenVINO's name of what it shall compute in; without one, it chooses for the CPU.
    """
    from anomalib.deploy import OpenVINOInferencer

    settings: dict[str, Any] = {} if threads is None else {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    if precision:
        settings["INFERENCE_PRECISION_HINT"] = precision
    inferencer, image = OpenVINOInferencer(path, "CPU", settings), _frame(side)
    return lambda: inferencer.predict(image)


def _scales() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        name: rng.standard_normal((1, 3, side, side), np.float32) for name, side in (("fine", 448), ("coarse", 224))
    }


def onnxruntime(threads: int | None, path: Path) -> Score:
    """A graph of both scales in ONNX Runtime, with the options of our own sessions."""
    from ahl_runtime.engines.ort import session
    from ahl_runtime.engines.tuned import SessionOptions

    loaded, scales = session(path.read_bytes(), cores(threads), False, SessionOptions()), _scales()
    return lambda: loaded.run(None, scales)


def openvino(threads: int | None, path: Path) -> Score:
    """A graph of both scales in OpenVINO, with the settings of our own engine."""
    from ahl_runtime.engines.openvino import compiled, read

    request, scales = compiled(read(path.read_bytes(), b""), cores(threads)).create_infer_request(), _scales()
    return lambda: request.infer(scales, share_inputs=True)


def main(kind: str, *arguments: str) -> None:
    """Serve the bench."""
    makes: dict[str, Callable[[int | None], Score]] = {
        "paper": paper,
        "anomalib": lambda threads: anomalib(threads, Path(arguments[0]), int(arguments[1]), *arguments[2:]),
        "onnxruntime": lambda threads: onnxruntime(threads, Path(arguments[0])),
        "openvino": lambda threads: openvino(threads, Path(arguments[0])),
    }
    measure.serve(makes[kind], RuntimeFault)


if __name__ == "__main__":
    main(*sys.argv[1:])
