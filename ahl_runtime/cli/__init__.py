"""The commands of `ahl-runtime`, one file for each."""

import gc

# Imports make many objects and no garbage. With Python's own threshold, 700, the first result comes 3 % later.
gc.set_threshold(20_000)
