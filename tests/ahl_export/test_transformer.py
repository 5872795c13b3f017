"""A vision transformer as the backbone: trained on, exported, and proven equal by the gate."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

from ahl_export.options import ExportOptions
from ahl_export.pipeline import export
from ahl_train.config import TrainConfig
from ahl_train.training import train

pytestmark = pytest.mark.slow


def test_a_vit_is_trained_exported_and_scores(elpv_cells, tmp_path: Path) -> None:
    name, weights = "vit_tiny_patch16_224", tmp_path / "vit.pth"
    torch.manual_seed(0)
    torch.save(timm.create_model(name, pretrained=False).state_dict(), weights)
    data = elpv_cells(tmp_path / "set", 33, 3)
    config = TrainConfig(
        str(data), shots=2, epochs=1, calibration=20, clusters=2, backbone=name, backbone_weights=weights
    )
    run = train(config, tmp_path / "run", cache=tmp_path / "cache")
    bundle = export(run.folder, tmp_path / "vit.ahl", ExportOptions(alpha=0.1))
    parity = bundle.manifest.first.parity
    assert parity is not None and parity.score_max < 1e-4 and parity.map_max < 1e-4
    command = [sys.executable, "-m", "ahl_runtime.cli.main", "score", "--bundle", bundle.path, next(data.glob("*/*/*"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["decision"] in ("pass", "unsure", "reject")
