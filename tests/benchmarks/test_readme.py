"""The README's figures."""

from benchmarks.readme import table

FIGURES = {
    "auroc": 0.9154,
    "false_reject_rate": 0.0053,
    "detection_rate": 0.412,
    "alpha": 0.01,
    "train_seconds": 101.2,
    "export_seconds": 44.0,
    "score_ms_p50": 33.3,
    "n_train_normal": 831,
    "n_calibration": 300,
    "n_test_normal": 377,
    "n_test_anomaly": 705,
}


def test_figures_are_in_the_table() -> None:
    text = table(FIGURES)
    for shown in ("0.915", "0.53%", "41.2%", "1%", "101 s", "33 ms", "831", "300", "377 + 705"):
        assert shown in text
