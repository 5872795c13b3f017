"""The counts of Table 1 and of other sources; a note if a count differs from the printed one."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Expected:
    """One row: normals to train and test, anomalies, and how many anomaly classes there are."""

    train_normal: int
    test_normal: int
    anomaly: int
    classes: int
    by_class: dict[str, int] = field(default_factory=dict)  # anomalies per class, if the source states them
    note: str = ""  # why a count differs from the printed one


MVTEC: dict[str, Expected] = {
    "bottle": Expected(209, 20, 63, 3),
    "cable": Expected(224, 58, 92, 8),
    "capsule": Expected(219, 23, 109, 5),
    "carpet": Expected(280, 28, 89, 5),
    "grid": Expected(264, 21, 57, 5),
    "hazelnut": Expected(391, 40, 70, 4),
    "leather": Expected(245, 32, 92, 5),
    "metal_nut": Expected(220, 22, 93, 4),
    "pill": Expected(267, 26, 141, 7),
    "screw": Expected(320, 41, 119, 5),
    "tile": Expected(
        230, 33, 84, 5, note="Table 1 prints 83 anomalies of tile; its own total, 1,258, needs the 84 of the set"
    ),
    "toothbrush": Expected(60, 12, 30, 1),
    "transistor": Expected(213, 60, 40, 4),
    "wood": Expected(247, 19, 60, 5),
    "zipper": Expected(240, 32, 119, 7),
}

SETS: dict[str, Expected] = {
    "aitex": Expected(1692, 564, 183, 12),
    "sdd": Expected(
        857,
        286,
        54,
        1,
        note="Table 1 prints 594 train normals; the cut gives 1,143 normals, and the 3:1 split leaves 857",
    ),
    "elpv": Expected(1131, 377, 715, 2, {"mono": 313, "poly": 402}),
    "optical": Expected(
        10500,
        3500,
        2100,
        10,
        {f"Class{i}": 150 if i <= 6 else 300 for i in range(1, 11)},
        note="Table 1 counts one class; its ten textures are ten classes here",
    ),
    "mastcam": Expected(9302, 426, 451, 11),
    "brainmri": Expected(73, 25, 155, 1),
    "headct": Expected(75, 25, 100, 1),
    "hyperkvasir": Expected(
        2021,
        674,
        757,
        4,
        {"barretts": 41, "barretts-short-segment": 53, "esophagitis-a": 403, "esophagitis-b-d": 260},
    ),
}
