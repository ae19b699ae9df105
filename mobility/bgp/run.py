"""`mobility exabgp` and `mobility bridge`: become ExaBGP, or the bridge, with all that they need.

ExaBGP starts as root and becomes `bgp.user` by itself before it starts the bridge, so ExaBGP may lie where that user
can not read, and the bridge may not.
"""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from mobility.bgp import conf
from mobility.config import Config

CONF_NAME = "exabgp.conf"
RUN_MODE = 0o755
CONF_MODE = 0o600
"""The file may hold passwords; ExaBGP reads it again as `bgp.user` when told to reload."""


class ExabgpError(Exception):
    """ExaBGP can not be started; the message says why and what to do."""


def account(user: str) -> pwd.struct_passwd:
    """Return the password entry of `bgp.user`. Raises ExabgpError where there is none."""
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise ExabgpError(
            f"user {user!r} (bgp.user) does not exist: pw useradd {user} -s /usr/sbin/nologin, or name another"
        ) from None


def closed_to(entry: pwd.struct_passwd, files: Iterable[Path]) -> Path | None:
    """Return the first of `files`, or of the folders above one, that `entry`'s user may not read or enter.

    Asked of the kernel, by a child that has become that user; None: all is open. Without root, which could not
    become anybody, it is asked for the caller. Raises ExabgpError when the child fails.
    """
    steps = [step for file in files for step in (*reversed(file.parents), file)]
    child = os.fork()
    if child == 0:
        # nothing but system calls here: this is a copy of a process that may have threads
        status = len(steps)
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(entry.pw_gid)
                os.setuid(entry.pw_uid)
            for number, step in enumerate(steps):
                if not os.access(step, os.X_OK if step.is_dir() else os.R_OK):
                    status = number
                    break
        finally:
            os._exit(min(status, MAX_STEPS))
    _, status = os.waitpid(child, 0)
    number = os.waitstatus_to_exitcode(status)
    if number < 0:
        raise ExabgpError(f"finding out what user {entry.pw_name!r} may read failed (signal {-number})")
    return steps[number] if number < len(steps) else None


MAX_STEPS = 255
"""An exit status has eight bits."""


def program(config: Config) -> str:
    """Return ExaBGP's program: as configured, or beside our own Python, or in PATH.

    Raises ExabgpError where there is none.
    """
    name = config.bgp.exabgp
    beside = str(Path(sys.executable).parent)
    found = shutil.which(name, path=os.pathsep.join((beside, os.environ.get("PATH", os.defpath))))
    if found is None:
        raise ExabgpError(f"{name!r} (bgp.exabgp) is not found or not executable: pkg install py311-exabgp, or name it")
    return str(Path(found).absolute())


def _write(path: Path, text: str, entry: pwd.struct_passwd) -> None:
    """Put `text` at `path`, whole or not at all, readable by its user only."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, CONF_MODE)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            if os.geteuid() == 0:
                os.fchown(descriptor, entry.pw_uid, entry.pw_gid)
            file.write(text)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def rewrite(config: Config) -> None:
    """Write RUN/exabgp.conf for an ExaBGP that runs, which is then told to read it: whole, or not at all.

    Raises ExabgpError with what to do where that fails; then the file is as it was.
    """
    path = config.paths.run / CONF_NAME
    try:
        _write(path, conf.render(config), account(config.bgp.user))
    except conf.ConfError as error:
        raise ExabgpError(str(error)) from error
    except FileNotFoundError:
        return  # ExaBGP never ran: it writes the file when it starts
    except OSError as error:
        raise ExabgpError(f"{path} can not be written: {error.strerror}") from error


def prepare(config: Config) -> tuple[list[str], dict[str, str]]:
    """Write RUN/exabgp.conf; return the command and the environment that start ExaBGP with it.

    Raises ExabgpError with what to do where ExaBGP or its bridge could not run.
    """
    entry = account(config.bgp.user)
    executable = program(config)
    try:
        text = conf.render(config)
    except conf.ConfError as error:
        raise ExabgpError(str(error)) from error
    needed = [Path(word) for word in config.bgp.bridge_command if word.startswith("/")]
    for file in needed:
        if not file.exists():
            raise ExabgpError(f"{file} (bgp.bridge_command) does not exist")
    closed = closed_to(entry, needed)
    if closed is not None:
        raise ExabgpError(
            f"user {config.bgp.user!r} (bgp.user) may not read {closed}, and ExaBGP runs the bridge as that user: "
            "install mobility where everybody can read it (/usr/local), or point bgp.bridge_command at a Python "
            "and a copy of bridge.py that lie there"
        )
    run = config.paths.run
    path = run / CONF_NAME
    try:
        run.mkdir(mode=RUN_MODE, parents=True, exist_ok=True)
        _write(path, text, entry)
        _write(run / conf.ENVIRONMENT_NAME, "", entry)
    except OSError as error:
        raise ExabgpError(f"{path} can not be written: {error.strerror}") from error
    closed = closed_to(entry, [path])
    if closed is not None:
        raise ExabgpError(f"user {config.bgp.user!r} (bgp.user) may not enter {closed}: chmod 755 it")
    environment = {"PATH": os.environ.get("PATH", os.defpath), **conf.environment(config)}
    return [executable, "server", str(path)], environment


def become_exabgp(config: Config) -> NoReturn:
    """Replace this process by ExaBGP. Raises ExabgpError where that is not possible."""
    command, environment = prepare(config)
    entry = account(config.bgp.user)
    if os.geteuid() == 0:
        # ExaBGP gives up root's user and group ids and keeps its other groups (reactor/daemon.py)
        os.setgroups(os.getgrouplist(entry.pw_name, entry.pw_gid))
    try:
        os.execve(command[0], command, environment)  # noqa: S606  # a list, no shell
    except OSError as error:
        raise ExabgpError(f"{command[0]} can not be started: {error.strerror}") from error


def become_bridge(config: Config) -> NoReturn:
    """Replace this process by the bridge, as ExaBGP would start it. Raises ExabgpError where that fails."""
    command = conf.bridge_command(config)
    try:
        os.execv(command[0], command)  # noqa: S606  # a list, no shell
    except OSError as error:
        raise ExabgpError(f"{command[0]} can not be started: {error.strerror}") from error
