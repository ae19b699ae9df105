"""Become a hook, and leave behind when that was: `stamp.py FILE PROGRAM ARGUMENT...` appends nanoseconds (UTC)."""

import os
import sys
import time

with open(sys.argv[1], "a") as file:  # noqa: PTH123  # start-up time: no pathlib here
    file.write(f"{time.time_ns()}\n")
os.execv(sys.argv[2], sys.argv[2:])
