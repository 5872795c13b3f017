"""Changed copies of train images for fitting a base: pasted, and turned if the part has no orientation."""

from collections.abc import Sequence

from rich.progress import Progress

from ahl_train.data.readers import Sample
from ahl_train.features import FeatureStore, Item
from ahl_train.features.maps import Features
from ahl_train.features.pseudo_anomalies import TURNS
from ahl_train.heads.base import Base, Copies

_FEWEST = 10  # held-out normals that show whether a part has an orientation
# Turned copies may depart by so many standard deviations of held-out normals if a part has no orientation.
# docs/results/method.md: boards 0.2, solar cells 0.5; heads 1.2, strips 1.7, parts that lie aligned 5 or more.
_NORMAL = 0.75


def copies(
    base: Base,
    normals: Sequence[Sample],
    seen: Sequence[Sample],
    seed: int,
    store: FeatureStore,
    progress: Progress | None,
    most: int,
) -> Copies:
    """Copies of normals, in the base's order, and of seen anomalies; ``most``: limit for normals plus their copies."""

    def features(samples: Sequence[Sample], change: str | None = None) -> Features:
        # CutPaste uses no donor.
        items = [Item(s, change, None if change is None else s, seed) for s in samples]
        return store.read(store.rows(items, progress), base.inputs)

    if not base.copied:
        return Copies()
    pasted = features(normals[: base.copied], "cutpaste")
    held_out, others = normals[::5][: base.copied], [s for i, s in enumerate(normals) if i % 5]
    if len(held_out) < _FEWEST:
        return Copies(pasted)
    turned = [features(held_out, turn) for turn in TURNS]
    if base.departure(features(others), features(held_out), turned) > _NORMAL:
        return Copies(pasted)
    first = normals[: max(0, most - len(normals)) // len(TURNS)]
    of_normals = tuple(features(first, turn) for turn in TURNS) if first else ()
    return Copies(pasted, of_normals, tuple(features(seen, turn) for turn in TURNS))
