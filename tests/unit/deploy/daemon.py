"""In the place of daemon(8): the options that FreeBSD 13.2 has, and what it does with signals there.

It writes its own pid, starts the program and starts it again when it ends. On SIGTERM it passes that on and ends without
waiting. Of a SIGHUP it dies, as any program without a handler does, and leaves its child behind.
"""

from __future__ import annotations

import getopt
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    """Go into the background and supervise."""
    given, program = getopt.getopt(sys.argv[1:], "cfHSp:P:ru:o:s:l:t:m:R:T:h")
    options = dict(given)
    pidfile = Path(options["-P"])
    pid = os.fork()
    if pid:
        # by the parent, so that it is there when this command has ended
        pidfile.write_text(f"{pid}\n")
        os._exit(0)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    child: subprocess.Popen[bytes] | None = None

    def terminate(*_: object) -> None:
        if child is not None:
            child.terminate()
        pidfile.unlink(missing_ok=True)
        os._exit(1)

    signal.signal(signal.SIGTERM, terminate)
    while True:
        child = subprocess.Popen(program)
        child.wait()
        time.sleep(float(options["-R"]))


if __name__ == "__main__":
    main()
