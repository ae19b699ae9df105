"""Starting and stopping jails: which step comes when, what a failure undoes, and what jail(8) says about it.

Follows jail.c (startcommands, stopcommands, main) and command.c (next_command, run_command, term_procs).
"""

from __future__ import annotations

import os
import pwd
import select
import signal
import stat
import sys
import time
from pathlib import Path
from typing import Protocol

from tests.lab.jail8.conf import Jail
from tests.lab.kernel.trees import resolve

#: The parameters whose values jail(8) may have to put on an interface, and what ifconfig(8) wants for them: family, and
#: the word and value for an address without a prefix length (run_command, IP__IP4_IFADDR and IP__IP6_IFADDR).
ADDRESSES = {"ip4.addr": ("inet", "netmask", "255.255.255.255"), "ip6.addr": ("inet6", "prefixlen", "128")}
#: The steps of a start and of a stop, in order. CREATE and REMOVE are jail_set(2) and jail_remove(2),
#: TERMINATE sends SIGTERM to the jail's processes and waits for them.
CREATE, REMOVE, TERMINATE = "create", "remove", "terminate"
START = (
    "exec.prepare",
    *ADDRESSES,
    "exec.prestart",
    CREATE,
    "exec.created",
    "vnet.interface",
    "exec.start",
    "command",
    "exec.poststart",
)
STOP = (
    "exec.prestop",
    "exec.stop",
    TERMINATE,
    REMOVE,
    "exec.poststop",
    *reversed(ADDRESSES),
    "exec.release",
)
IN_JAIL = frozenset({"exec.start", "command", "exec.stop"})
#: With one of these in a start, the jail is made persistent until they have run (create_jail, dopersist).
NEEDS_PERSIST = ("exec.start", "command", "exec.poststart")
#: What jail(8) can do on FreeBSD and not here.
REFUSED = ("ip_hostname",)

STOP_SECONDS = 10  # DEFAULT_STOP_TIMEOUT
SHELL = "/bin/sh"
#: Any of these in a command line, and it goes to the shell (run_command).
SHELL_CHARACTERS = frozenset("!\"$&'()*;<>?[\\]`{|}~")
IFCONFIG = "/sbin/ifconfig"
RC, RC_SHUTDOWN = "/etc/rc", "/etc/rc.shutdown"
#: Where a jail's tree has no FreeBSD in it, the lab's own rc reads its rc.conf, and something stays for the daemons that
#: a FreeBSD leaves running: without them a jail that is not persistent would be gone.
LAB_RC = '"$0"; setsid sleep infinity </dev/null >/dev/null 2>&1 &'
#: What login.conf(5)'s class "default" of a 13.2 sets, as 5-jail.txt shows it.
LOGIN_PATH = "/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
LOGIN_ENVIRONMENT = {"BLOCKSIZE": "K", "LANG": "C.UTF-8", "MM_CHARSET": "UTF-8"}
FIRST_DESCRIPTOR = 3


class JailError(Exception):
    """The kernel refused; the text is libjail's (jail_errmsg)."""


class Machine(Protocol):
    """The kernel, as jail(8) needs it. All refusals are JailError."""

    #: The folder of FreeBSD's commands.
    commands: str

    def find(self, name: str, *, dying: bool = False) -> int | None:
        """Return the jid of a running jail, by its name or its jid in digits."""

    def check(self, parameters: dict[str, str | None]) -> list[str]:
        """Return what is wrong with kernel parameters before any of them is used (jailparam_import)."""

    def create(self, parameters: dict[str, str | None]) -> int:
        """Make a jail, return its jid."""

    def change(self, jid: int, parameters: dict[str, str | None]) -> None:
        """Change parameters of a jail."""

    def remove(self, jid: int) -> None:
        """Remove a jail and kill what is left in it."""

    def processes(self, jid: int) -> list[int]:
        """Return the pids of the processes in a jail, not those in its children."""

    def attach(self, jid: int, path: str) -> None:
        """Put the calling process into a jail, whose root is `path`."""


def warn(text: str) -> None:
    """Print a warning as warnx(3) does."""
    sys.stdout.flush()
    sys.stderr.write(f"jail: {text}\n")
    sys.stderr.flush()


class Run:
    """One jail being started or stopped. `verbose`: -1 for -q, 1 for -v. `note_remove`: say that it went."""

    def __init__(self, jail: Jail, machine: Machine, *, verbose: int = 0, note_remove: bool = False) -> None:
        self.jail = jail
        self.machine = machine
        self.verbose = verbose
        self.note_remove = note_remove
        self.jid: int | None = None

    def warn(self, text: str) -> None:
        """Print a warning with the jail's name, where it has one."""
        warn(f"{self.jail.name}: {text}" if self.jail.name is not None else text)

    def note(self, text: str) -> None:
        """Print a note with the jail's name, where it has one."""
        sys.stdout.write(f"{self.jail.name}: {text}\n" if self.jail.name is not None else f"{text}\n")
        sys.stdout.flush()

    def start(self) -> bool:
        """Start the jail; at the first failure undo what was done. Return whether it runs."""
        problems = [*self._misread(), *self.machine.check(self.jail.kernel())]
        problems += [f"{name}: the lab has none of this" for name in REFUSED if self.jail.find(name)]
        for problem in problems:
            self.warn(problem)
        if problems:
            return False
        done: list[tuple[str, str]] = []
        for step in START:
            for string in self._strings(step):
                if not self._do(step, string):
                    self._undo(done)
                    return False
                done.append((step, string))
        self._clear_persist()
        return True

    def stop(self) -> bool:
        """Stop the jail: a failure before its end leaves it running. Return whether nothing failed."""
        problems = self._misread()
        for problem in problems:
            self.warn(problem)
        if problems:
            return False
        well = True
        for step in STOP:
            for string in self._strings(step):
                if not self._do(step, string, down=True):
                    well = False
                    if self.jid is not None:
                        return False
        return well

    def _misread(self) -> list[str]:
        """Return what is wrong with jail(8)'s own parameters (check_intparams): the fstabs must at least be there."""
        problems = self.jail.judge()
        for name in self.jail.values("mount.fstab"):
            try:
                Path(name).read_bytes() if name else b""
            except OSError as error:
                problems.append(f"mount.fstab: {name}: {error.strerror}")
        return problems

    def _strings(self, step: str) -> list[str]:
        if step in {CREATE, REMOVE, TERMINATE}:
            return [step]
        if step in ADDRESSES:
            return ["|".join(each) for each in self.jail.interface_addresses(step)]
        values = [value for value in self.jail.values(step) if value]
        return values[:1] if step == "command" and self.jail.name is None else values

    def _undo(self, done: list[tuple[str, str]]) -> None:
        """Go back through what a failed start has done; only three of its steps leave something."""
        for step, string in reversed(done):
            if step == "vnet.interface":
                self._command(step, [IFCONFIG, string, "-vnet", self._self()])
            elif step in ADDRESSES:
                self._do(step, string, down=True)
            elif step == CREATE:
                self._remove(noted=self.jail.name is not None)

    def _do(self, step: str, string: str, *, down: bool = False) -> bool:
        if step == CREATE:
            return self._create()
        if step == TERMINATE:
            self._terminate()
            return True
        if step == REMOVE:
            return self._remove(noted=self.note_remove)
        if step == "vnet.interface":
            return self._command(step, [IFCONFIG, string, "vnet", self._self()])
        if step in ADDRESSES:
            return self._command(step, self._alias(step, string, "-alias" if down else "alias"))
        if step == "command" and self.jail.name is None:
            return self._command(step, self.jail.values(step))
        return self._line(step, string)

    @staticmethod
    def _alias(step: str, string: str, verb: str) -> list[str]:
        """Return the ifconfig(8) that puts an address on an interface or takes it away."""
        interface, _bar, address = string.partition("|")
        family, word, value = ADDRESSES[step]
        plain, slash, mask = address.partition("/")
        if not slash:
            address, more = plain, [word, value]
        elif "." in mask and family == "inet":
            address, more = plain, [word, mask]
        else:
            more = []
        return [IFCONFIG, interface, family, address, *more, verb]

    def _line(self, step: str, line: str) -> bool:
        background = line.endswith("&") and not SHELL_CHARACTERS.intersection(line[:-1])
        if background:
            return self._command(step, line[:-1].split(), background=True)
        if SHELL_CHARACTERS.intersection(line):
            return self._command(step, [SHELL, "-c", line])
        return self._command(step, line.split())

    def _self(self) -> str:
        return self.jail.string("jid") or self.jail.string("name") or ""

    def _create(self) -> bool:
        if not self._path_stands():
            return False
        parameters = self.jail.kernel()
        if self._temporarily_persistent():
            parameters = {name: value for name, value in parameters.items() if name not in {"persist", "nopersist"}}
            parameters["persist"] = None
        try:
            self.jid = self.machine.create(parameters)
        except JailError as error:
            self._note_set(parameters, f": {error}")
            self.warn(str(error))
            return False
        self._note_set(parameters, "")
        if self.verbose >= 0 and (self.jail.name is not None or self.verbose > 0):
            self.note("created")
        return True

    def _path_stands(self) -> bool:
        """Tell whether the jail's path is a directory; complain more clearly than jail_set(2)."""
        path = self.jail.string("path")
        if path is None:
            return True
        if self.jail.name is not None and not path.startswith("/"):
            self.warn(f"path {path}: not an absolute pathname")
            return False
        try:
            if stat.S_ISDIR(Path(path).stat().st_mode):
                return True
            reason = "Not a directory"
        except OSError as error:
            reason = str(error.strerror)
        self.warn(f"path {path}: {reason}")
        return False

    def _note_set(self, parameters: dict[str, str | None], failure: str) -> None:
        if self.verbose > 0:
            shown = [name if value is None else f"{name}={quoted(value)}" for name, value in parameters.items()]
            self.note(f"jail_set(JAIL_CREATE) {' '.join(shown)}{failure}")

    def _temporarily_persistent(self) -> bool:
        return not self.jail.true("persist") and any(self.jail.find(name) for name in NEEDS_PERSIST)

    def _clear_persist(self) -> None:
        if self.jid is None or self.jail.true("persist"):
            return
        if self._temporarily_persistent():
            self.machine.change(self.jid, {"nopersist": None})
            if self.verbose > 0:
                self.note(f"jail_set(JAIL_UPDATE) jid={self.jid} nopersist")
        # FreeBSD's kernel lets a jail go with its last process; the lab's does not watch processes
        if not self.machine.processes(self.jid):
            self.machine.remove(self.jid)

    def _remove(self, *, noted: bool) -> bool:
        if self.jid is not None:
            try:
                self.machine.remove(self.jid)
            except JailError as error:
                self.warn(f"jail_remove: {error}")
                return False
        if self.verbose > 0 or (self.verbose == 0 and noted):
            self.note("removed")
        self.jid = None
        return True

    def _terminate(self) -> None:
        """Send SIGTERM to the jail's processes and wait up to stop.timeout for their end."""
        seconds = self.jail.integer("stop.timeout")
        if self.jid is None or seconds == 0:
            return
        waiting = []
        for pid in self.machine.processes(self.jid):
            try:
                descriptor = os.pidfd_open(pid)
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                continue  # it ended by itself
            waiting.append((pid, descriptor))
        if waiting and self.verbose > 0:
            self.note("sent SIGTERM to: " + " ".join(str(pid) for pid, _ in waiting))
        deadline = time.monotonic() + (STOP_SECONDS if seconds is None else seconds)
        for _, descriptor in waiting:
            ended = await_end(descriptor, max(0.0, deadline - time.monotonic()))
            os.close(descriptor)
            if not ended:
                break

    def _command(self, step: str, argv: list[str], *, background: bool = False) -> bool:
        if not argv:
            return True
        line = " ".join(argv)
        inside = step in IN_JAIL
        user = self.jail.string("exec.jail_user" if inside else "exec.system_user")
        if self.verbose > 0:
            where = (" in jail" if inside else "") + (f" as {user}" if user else "")
            self.note(f"run command{where}: {line}")
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            self._become(argv, user, inside=inside, background=background)
        if background:
            return True
        seconds = self.jail.integer("exec.timeout")
        if seconds:
            descriptor = os.pidfd_open(pid)
            ended = await_end(descriptor, seconds)
            os.close(descriptor)
            if not ended:  # jail(8) goes on without it, and does not end it
                self.warn(f"{line}: timed out")
                return False
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            self.warn(f"{line}: exited on signal {os.WTERMSIG(status)}")
            return False
        if status != 0:
            self.warn(f"{line}: failed")
            return False
        return True

    def _become(self, argv: list[str], user: str | None, *, inside: bool, background: bool) -> None:
        """Turn this (forked) process into the command; never return."""
        try:
            if background:
                os.setsid()
            console = self.jail.string("exec.consolelog") if inside else None
            log = os.open(console, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666) if console else None
            clean = self.jail.true("exec.clean")
            system_user = self.jail.true("exec.system_jail_user")
            environment = dict(os.environ)
            if (clean or user) and inside and system_user:
                self._be_user(user, environment, clean=clean)
            if inside and self.jail.integer("exec.fib"):
                raise JailError("setfib: Invalid argument")  # net.fibs is 1
            path = self.jail.string("path") or "/"
            script = inside and argv[:2] == [SHELL, RC] and resolve(path, RC) is None
            shutdown = inside and argv[:2] == [SHELL, RC_SHUTDOWN] and resolve(path, RC_SHUTDOWN) is None
            if inside and self.jid is not None:
                self.machine.attach(self.jid, "/" if script or shutdown else path)
            if (clean or user) and not (inside and system_user):
                self._be_user(user, environment, clean=clean)
            if log is not None:
                os.dup2(log, 1)
                os.dup2(log, 2)
            os.closerange(FIRST_DESCRIPTOR, os.sysconf("SC_OPEN_MAX"))
            # what stands in jail(8) as FreeBSD's path is the lab's command
            program = f"{self.machine.commands}/ifconfig" if argv[0] == IFCONFIG else argv[0]
            if script:
                program, argv = SHELL, [SHELL, "-c", LAB_RC, f"{self.machine.commands}/rc"]
            elif shutdown:
                os._exit(0)
            os.execvpe(program, argv, environment)
        except JailError as error:
            self.warn(str(error))
        except OSError as error:
            self.warn(f"exec {argv[0]}: {error.strerror}")
        os._exit(1)

    def _be_user(self, user: str | None, environment: dict[str, str], *, clean: bool) -> None:
        """Change `environment`, and the user if one is named, as setusercontext(3) does for class default."""
        try:
            entry = pwd.getpwnam(user) if user else pwd.getpwuid(os.getuid())
        except KeyError:
            raise JailError(f"{user}: no such user") from None
        if clean:
            terminal = environment.get("TERM")
            environment.clear()
            if terminal is not None:
                environment["TERM"] = terminal
        environment.update(LOGIN_ENVIRONMENT)
        environment["MAIL"] = f"/var/mail/{entry.pw_name}"
        environment["PATH"] = f"{self._lab_path()}{LOGIN_PATH}:{entry.pw_dir}/bin"
        environment.update(USER=entry.pw_name, HOME=entry.pw_dir, SHELL=SHELL)
        if user:
            os.initgroups(entry.pw_name, entry.pw_gid)
            os.setgid(entry.pw_gid)
            os.setuid(entry.pw_uid)
        if clean:
            os.chdir(entry.pw_dir)
            environment.pop("PWD", None)
            environment.pop("OLDPWD", None)

    def _lab_path(self) -> str:
        """Return what a login's PATH needs before it where FreeBSD's commands are not in /sbin."""
        ifconfig = Path(IFCONFIG)
        if ifconfig.exists() and ifconfig.samefile(Path(self.machine.commands, ifconfig.name)):
            return ""
        return f"{self.machine.commands}:"


def await_end(descriptor: int, seconds: float) -> bool:
    """Wait for the process behind a pidfd (pidfd_open(2)); return whether it ended in time."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def quoted(text: str) -> str:
    """Return a parameter's value as jail(8) prints it (quoted_print)."""
    quote = '"' if not text or "'" in text else "'" if '"' in text else '"' if " " in text or "\t" in text else ""
    escaped = "".join(f"\\{each}" if each == "\\" or each == quote else each for each in text)
    return f"{quote}{escaped}{quote}"
