"""`python -m tests.lab.kernel --dir LABDIR [--owner-fd N] [--ready-fd N]`: run a lab kernel until its owner is gone."""

from __future__ import annotations

import argparse
import os
import platform
import resource
import secrets
import shutil
import sys
import time
from pathlib import Path

from tests.lab.commands import COMMANDS
from tests.lab.kernel import processes
from tests.lab.kernel.linux import Linux
from tests.lab.kernel.machine import Machine
from tests.lab.kernel.releases import DEFAULT, RELEASES
from tests.lab.kernel.server import Server
from tests.lab.kernel.syscalls import CLONE_NEWNET, CLONE_NEWUTS, SETNS_NUMBER

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]

_JAIL = """#!{python} -IS
import sys
sys.path.insert(0, {repository!r})
from tests.lab.jail8.__main__ import main
sys.exit(main({directory!r}, sys.argv[1:]))
"""


def install(directory: Path) -> None:
    """Make LABDIR/bin: one Perl client under the names of FreeBSD's commands, and jail(8)."""
    target = directory / "bin"
    target.mkdir(mode=0o755)
    text = (HERE.parent / "bin" / "client.pl").read_text()
    for mark, value in (
        ("@SOCKET@", str(directory / "kernel.sock")),
        ("@SETNS@", str(SETNS_NUMBER[platform.machine()])),
        ("@NEWNET@", str(CLONE_NEWNET)),
        ("@NEWUTS@", str(CLONE_NEWUTS)),
    ):
        text = text.replace(mark, value)
    client = target / ".client"
    client.write_text(text)
    client.chmod(0o755)
    for name in COMMANDS:
        (target / name).symlink_to(".client")
    for program in (HERE.parent / "bin").glob("*.py"):
        shutil.copy(program, target / f".{program.name}")
    jail = target / "jail"
    python = Path(sys.executable).resolve()
    jail.write_text(_JAIL.format(python=python, repository=str(REPOSITORY), directory=str(directory)))
    jail.chmod(0o755)


def main() -> int:
    """Run the kernel; 0 when it ended in order."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.kernel")
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--owner-fd", type=int)
    parser.add_argument("--ready-fd", type=int)
    parser.add_argument("--kernel", choices=RELEASES, default=DEFAULT.name, help="which FreeBSD to play")
    options = parser.parse_args()
    directory: Path = options.dir.resolve()
    for number in (options.owner_fd, options.ready_fd):
        if number is not None:
            os.set_inheritable(number, False)  # a program that the kernel runs must not keep the pipe open
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # three descriptors for each jail
    install(directory)
    (directory / "kernel.pid").write_text(f"{os.getpid()} {processes.start_time(os.getpid())}\n")
    machine = Machine(
        Linux(tag=directory.name[:64]),
        kill=processes.kill_in,
        boot_id=secrets.token_bytes(16),
        boot_time=time.time(),
        programs=directory / "bin",
        python=(str(Path(sys.executable).resolve()), "-IS"),
        kernel=RELEASES[options.kernel],
        devd=directory,
    )
    server = Server(machine, directory, options.owner_fd)
    if options.ready_fd is not None:
        os.write(options.ready_fd, b"ready\n")
        os.close(options.ready_fd)
    try:
        server.run()
    finally:
        server.close()
        (directory / "kernel.sock").unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
