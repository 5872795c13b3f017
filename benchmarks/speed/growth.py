"""Train on N normals in an own process. `python -m benchmarks.speed.growth N FOLDER` prints one JSON object."""

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from ahl_runtime.tuning.measure import memory
from ahl_train.config import TrainConfig
from ahl_train.data.readers import Sample
from ahl_train.data.split import Split
from ahl_train.features import Extractor, FeatureStore, Item
from ahl_train.features.backbone import BackboneSpec
from ahl_train.method import hadg
from ahl_train.method.fit import learn
from ahl_train.run import RunFolder
from ahl_train.systems import DEFAULT_SYSTEM, system
from benchmarks.speed.cdl import SHOTS


class RandomStore(FeatureStore):
    """A feature store with random features instead of those of frames. The files on the disk have the same form."""

    def rows(self, items: Sequence[Item], progress: Progress | None = None) -> NDArray[np.int64]:
        """The row of each item. New items get random features."""
        keys = [hashlib.sha256(repr(item).encode()).hexdigest() for item in items]
        missing = [key for key in dict.fromkeys(keys) if key not in self._known]
        records = self._random(len(missing))
        with self._data.open("ab") as data, self._keys.open("ab") as names:
            for key, record in zip(missing, records, strict=True):
                data.write(record.tobytes())
                names.write(f"{key}\n".encode())
                self._known[key] = len(self._known)
        return np.array([self._known[key] for key in keys], np.int64)

    def _random(self, count: int) -> Iterator[NDArray[np.void]]:
        """Yield `count` different records, one at a time to save memory. Each is one of 16 random records, scaled."""
        rng = np.random.default_rng(len(self._known))
        names, few = self._record.names or (), np.zeros(16, self._record)
        for name in names:
            few[name] = rng.random(few[name].shape, np.float32)
        for i, scale in enumerate(rng.uniform(0.5, 1, count)):
            record = np.zeros((), self._record)
            for name in names:
                record[name] = few[i % len(few)][name] * np.float32(scale)
            yield record


def measure(n: int, folder: Path) -> dict[str, float]:
    """Train the default system on `n` normals: seconds of HADG, an epoch, all after features; peak memory in MB."""
    config = TrainConfig("random", shots=SHOTS)
    extractor = Extractor(BackboneSpec())
    store = RandomStore(folder, extractor)
    normals = tuple(Sample(Path(f"normal-{i}"), 0, "good") for i in range(n))
    seen = tuple(Sample(Path(f"seen-{i}"), 1, "defect") for i in range(SHOTS))
    split = Split(normals, (), seen, (), "general", None, SHOTS, 0)
    rows = store.rows([Item(s) for s in normals])
    vectors = store.means(rows)
    started = time.perf_counter()
    hadg.generate(vectors, SHOTS, np.random.default_rng(0), pseudo=config.steps.pseudo)
    hadg_s = time.perf_counter() - started
    run = RunFolder(folder)
    chosen = system(DEFAULT_SYSTEM)
    started = time.perf_counter()
    learn(chosen.base(extractor, SHOTS), config, split, store, chosen.ahl, run)
    learn_s = time.perf_counter() - started
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    epoch_s = float(np.median([line["seconds"] for line in lines]))
    return {"n": n, "hadg_s": hadg_s, "epoch_s": epoch_s, "learn_s": learn_s, "peak_mb": memory()["rss_peak_mb"] or 0.0}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[2]) as own:
        sys.stdout.write(json.dumps(measure(int(sys.argv[1]), Path(own))) + "\n")
