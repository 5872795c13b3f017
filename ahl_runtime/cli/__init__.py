"""The commands of `ahl-runtime`, one file for each."""

import gc
import os

# For a fast start. Imports make many objects and no garbage: with Python's own threshold, 700, the collector takes 3 %
# of the time to the first result. And pydantic would look for plug-ins of its own in every installed package.
OWN_THRESHOLDS = gc.get_threshold()
gc.set_threshold(200_000)
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
