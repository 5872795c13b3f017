"""What loading leaves behind goes back to the system, and what was changed in memory stays."""

import subprocess
import sys
from pathlib import Path

import pytest

from ahl_runtime.core import memory

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="no mappings are listed here")

SMAPS = """\
7f0000000000-7f0000200000 r-xp 00000000 fe:00 12 /usr/lib/code.so
Rss:                2048 kB
Anonymous:             0 kB
7f0000200000-7f0000300000 r--p 00200000 fe:00 12 /usr/lib/code.so
Anonymous:             8 kB
7f0000300000-7f0000400000 rw-p 00300000 fe:00 12 /usr/lib/code.so
Anonymous:             0 kB
7f0000400000-7f0000500000 r--p 00000000 00:00 0
Anonymous:             0 kB
7f0000500000-7f0000600000 r--s 00000000 fe:00 13 /tmp/shared
Anonymous:             0 kB
7f0000600000-7f0000601000 r--p 00000000 fe:00 14 /usr/lib/a table
Anonymous:             0 kB
"""

PROCESS = """
import re
import numpy
from ahl_runtime.core import memory

def resident():
    return int(re.search(r"RssFile:\\s+(\\d+) kB", open("/proc/self/status").read())[1])

before = resident()
memory.trim()
freed = before - resident()
numpy.linalg.inv(numpy.eye(64))  # code that was let go of runs all the same
print(freed)
"""


def test_only_what_equals_its_file_is_let_go_of() -> None:
    assert list(memory._unwritten(SMAPS)) == [(0x7F0000000000, 0x200000), (0x7F0000600000, 0x1000)]


def test_code_that_is_not_run_again_leaves_memory() -> None:
    done = subprocess.run([sys.executable, "-c", PROCESS], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 4_000  # kB
