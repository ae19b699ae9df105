"""jail(8)'s command line, of the four styles the ones that people use: by a jail.conf, and by parameters."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from tests.lab.jail8 import conf
from tests.lab.jail8.machine import LabMachine
from tests.lab.jail8.run import JailError, Run, warn

CONF_FILE = "/etc/jail.conf"
OPTIONS, WITH_VALUE = "cdhilmqrRv", "fJnpsuU"
NAMING = {"n": "name", "s": "securelevel"}
USAGE = """\
usage: jail [-dhilqv] [-J jid_file] [-u username] [-U username]
            -[cmr] param=value ... [command=command ...]
       jail [-dqv] [-f file] -[cmr] [jail]
       jail [-qv] [-f file] -[rR] ['*' | jail ...]
       jail [-dhilqv] [-J jid_file] [-u username] [-U username]
            [-n jailname] [-s securelevel]
            path hostname [ip[,...]] command ...
"""


class Usage(Exception):
    """The command line is none of jail(8)'s."""


def options(arguments: list[str]) -> tuple[str, dict[str, str], list[str]]:
    """Return the option letters in order, the values of those that have one, and what is left (getopt(3)).

    Python's getopt would cost a fifth of a jail(8)'s whole time to load.
    """
    given, values, rest = "", {}, list(arguments)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        letters = rest.pop(0)[1:]
        if letters == "-":
            break
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter not in OPTIONS + WITH_VALUE:
                sys.stderr.write(f"jail: illegal option -- {letter}\n")
                raise Usage
            given += letter
            if letter in WITH_VALUE:
                if not letters and not rest:
                    sys.stderr.write(f"jail: option requires an argument -- {letter}\n")
                    raise Usage
                values[letter], letters = letters or rest.pop(0), ""
    return given, values, rest


class Command:
    """One run of jail(8) on `machine`."""

    def __init__(self, machine: LabMachine) -> None:
        self.machine = machine
        self.file = CONF_FILE
        self.verbose = 0
        self.jails: list[conf.Jail] = []
        self.seen: dict[str, bool] = {}
        self.note_remove = False
        self.named: list[str] = []  # what -n and -s say
        self.show_jid = False

    def run(self, arguments: list[str]) -> int:
        """Do what the arguments say; return the exit status. Raises Usage, conf.ConfError."""
        given, values, names = options(arguments)
        self.file = values.get("f", CONF_FILE)
        for letter in given:
            self.verbose = {"v": 1, "q": -1}.get(letter, self.verbose)
        absent = [letter for letter in "hJluU" if letter in given]
        if absent:
            warn(f"the lab has no -{absent[0]}")
            return 1
        if "m" in given and "r" in given:
            warn("the lab has no -mr")
            return 1
        if "m" in given and ("c" not in given or self._runs(names)):
            return self.modify(names)
        self.named = [f"{name}={values[letter]}" for letter, name in NAMING.items() if letter in values]
        self.show_jid = "i" in given
        if "R" in given:
            if "c" in given or not names:
                raise Usage
            return self.remove(names)
        if "c" in given and (len(names) > 1 or (names and "=" in names[0]) or self.named):
            if "r" in given and self._runs(names) and self.remove([self._named(names)]):
                return 1
            return self.create(names)
        if "c" not in given and "r" not in given:
            raise Usage
        if "c" not in given and (not names or any("=" in name for name in names)):
            raise Usage
        if "c" in given or self.file == "-" or Path(self.file).exists():
            self.load()
        self.note_remove = bool(self.jails) or len(names) > 1 or conf.is_wildcard(names[0])
        return self.by_file(names, start="c" in given, stop="r" in given)

    def load(self) -> None:
        """Read the jail.conf."""
        if self.file == "-":
            self.jails = conf.jails(conf.parse(sys.stdin.read(), "STDIN", includes=self.machine.includes()))
            return
        try:
            text = Path(self.file).read_text(encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise conf.ConfError([f"{self.file}: {error.strerror}"]) from error
        self.jails = conf.jails(conf.parse(text, self.file, includes=self.machine.includes()))

    def create(self, parameters: list[str]) -> int:
        """`jail -c name=value ...`: one jail from the command line."""
        jail = conf.Jail(None)
        for index, text in enumerate(parameters):
            if text == "command" or text.startswith("command="):
                words = [text.partition("=")[2]] if "=" in text else []
                jail.add(conf.Parameter("command", [(word,) for word in words + parameters[index + 1 :]]))
                break
            jail.add_text(text)
        for text in self.named:
            jail.add_text(text)
        run = self._run(jail)
        name = jail.string("jid") or jail.string("name")
        if name is not None and self.machine.find(name) is not None:
            warn(f'"{name}" already exists')
            return 1
        if not run.start():
            return 1
        if self.show_jid:
            sys.stdout.write(f"{run.jid}\n")
        return 0

    def modify(self, parameters: list[str]) -> int:
        """`jail -m jid=N|name=NAME parameter=value ...`: change a running jail's parameters (update_jail)."""
        jail = conf.Jail(None)
        for text in parameters:
            jail.add_text(text)
        name = jail.string("jid") or jail.string("name")
        if name is None:
            raise Usage
        jid = self.machine.find(name)
        if jid is None:
            warn(f'"{name}" not found')
            return 1
        changes = {key: value for key, value in jail.kernel().items() if key not in ("jid", "name")}
        problems = self.machine.check(changes)
        for problem in problems:
            warn(problem)
        if not problems:
            self.machine.change(jid, changes)
        return 1 if problems else 0

    def remove(self, names: list[str]) -> int:
        """`jail -R`: remove running jails, whatever any file says."""
        self.note_remove = len(names) > 1 or conf.is_wildcard(names[0])
        status = 0
        for name in names:
            if conf.is_wildcard(name):
                found = [each for each in self.machine.names() if conf.wildcard_matches(each, name)]
            else:
                found = [name]
            for each in found:
                run = self._run(conf.Jail(each))
                run.jid = self.machine.find(each, dying=True)
                if run.jid is None:
                    warn(f'"{each}" not found')
                    status = 1
                elif not run.stop():
                    status = 1
        return status

    def by_file(self, names: list[str], *, start: bool, stop: bool) -> int:
        """`-c`, `-r` and `-rc` for jails of the file; without names (or with "*") for all of them."""
        status = 0
        if start and len(names) == 0:
            names = ["*"]
        for name in names:
            wild = conf.is_wildcard(name)
            if wild:
                chosen = [jail for jail in self.jails if jail.name and conf.wildcard_matches(jail.name, name)]
            else:
                chosen = [jail for jail in self.jails if jail.name == name][:1]
            if not chosen and not wild and not start and self.machine.find(name, dying=True) is not None:
                jail = conf.Jail(name)
                jail.add(conf.Parameter("jid" if name.isdigit() else "name", [(name,)]))
                chosen = [jail]
            if not chosen and not wild:
                warn(f'"{name}" not found')
                status = 1
            for jail in reversed(chosen) if stop else chosen:
                well = self.take_down(jail, named=not wild) if stop else True
                if start and (well or wild):
                    well = self.bring_up(jail, named=not wild) and well
                status = status if well else 1
        return status

    def bring_up(self, jail: conf.Jail, *, named: bool) -> bool:
        """Start a jail, what it depends on first. A running one is an error only where it was named."""
        name = jail.name or ""
        if name in self.seen:
            return self.seen[name]
        self.seen[name] = True
        if not self._sound(jail):
            return False
        if self.machine.find(self._called(jail)) is not None:
            if named:
                warn(f'"{name}" already exists')
                self.seen[name] = False
            return self.seen[name]
        needed = jail.values("depend") + [name.rpartition(".")[0]] * ("." in name)
        for other in (each for each in self.jails if each.name in needed):
            if not self.bring_up(other, named=False):
                warn(f"{name}: skipped")
                self.seen[name] = False
                return False
        self.seen[name] = self._run(jail).start()
        return self.seen[name]

    def take_down(self, jail: conf.Jail, *, named: bool) -> bool:
        """Stop a jail, what depends on it first. One that does not run is an error only if named."""
        if not self._sound(jail):
            return False
        for other in self.jails:
            depends = jail.name in other.values("depend") or (other.name or "").rpartition(".")[0] == jail.name
            if depends and not self.take_down(other, named=False):
                warn(f"{jail.name}: skipped")
                return False
        run = self._run(jail)
        run.jid = self.machine.find(self._called(jail))
        if run.jid is None:
            if named and self.verbose >= 0:
                warn(f'"{jail.name}" not found')
            return not named
        return run.stop()

    def _sound(self, jail: conf.Jail) -> bool:
        defined = {each.name for each in self.jails}
        problems = list(jail.problems)
        problems += [f'depends on undefined jail "{each}"' for each in jail.values("depend") if each not in defined]
        for problem in problems:
            warn(f"{jail.name}: {problem}")
        return not problems

    @staticmethod
    def _named(parameters: list[str]) -> str:
        """Return the jail that `jid=` or `name=` means, or nothing."""
        given = dict(text.split("=", 1) for text in parameters if "=" in text)
        return given.get("jid") or given.get("name") or ""

    def _runs(self, parameters: list[str]) -> bool:
        name = self._named(parameters)
        return bool(name) and self.machine.find(name) is not None

    @staticmethod
    def _called(jail: conf.Jail) -> str:
        return jail.string("jid") or jail.string("name") or jail.name or ""

    def _run(self, jail: conf.Jail) -> Run:
        return Run(jail, self.machine, verbose=self.verbose, note_remove=self.note_remove)


def main(directory: str, arguments: list[str]) -> int:
    """Run jail(8) in the lab whose folder is `directory`; return the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")  # names are bytes to FreeBSD
    try:
        return Command(LabMachine(directory)).run(arguments)
    except Usage:
        sys.stderr.write(USAGE)
    except conf.ConfError as error:
        for message in error.messages:
            warn(message)
    except JailError as error:
        warn(str(error))
    return 1
