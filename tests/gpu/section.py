"""One section in this process: python section.py NAME DEVICE small|whole DATA FOLDER SECONDS; FOLDER/result.json."""

import json
import sys
from importlib import import_module
from pathlib import Path

import torch
from common import Ask

name, device, size, data, folder, seconds = sys.argv[1:]
ask = Ask(torch.device(device), size == "small", data, Path(folder), float(seconds))
result = import_module(f"sections.{name}").measure(ask)
(ask.folder / "result.json").write_text(json.dumps(result))
