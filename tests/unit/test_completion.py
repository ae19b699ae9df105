"""Completion, asked of the shells themselves: it offers what the parser knows, jails by their names, and runs nothing odd."""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mobility import cli, completion
from mobility.completion import FILES, SHELLS
from tests.readme import DEPLOY
from tests.waiting import PATIENCE

NAMES = ("db1", "web1", "web2")
#: Names that jail(8) takes, and that a shell would run or take for several words.
NASTY = ("$(touch pwned)", "`touch pwned`", "a;touch pwned", "two words", "'", '"', "*", "-option", "..")
PARSER = cli._parser()
#: What a terminal shows when it is printed, and not when it is typed, with quotes in it.
END = "END-OF-IT"


def parsers() -> dict[str, argparse.ArgumentParser]:
    for action in PARSER._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise AssertionError("the parser has no commands")


COMMANDS = parsers()


def options(parser: argparse.ArgumentParser) -> set[str]:
    return {name for action in parser._actions for name in action.option_strings}


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """Write completion of all shells, for a host whose jails.d and jls(8) are ours."""
    jails_d = tmp_path / "jails.d"
    jails_d.mkdir()
    for name in (*NAMES[:2], *(name for name in NASTY if "/" not in name)):
        (jails_d / f"{name}.toml").touch()
    programs = tmp_path / "bin"
    programs.mkdir()
    running = "\n".join([*NAMES[1:], *NASTY])
    (programs / "names").write_text(f"{running}\n")
    (programs / "jls").write_text(f'#!/bin/sh\n[ "$*" = name ] || exit 1\ncat {programs}/names\n')
    # whatever completion does, it never calls this
    (programs / "mobility").write_text(f"#!/bin/sh\ntouch {tmp_path}/pwned\n")
    for program in ("jls", "mobility"):
        (programs / program).chmod(0o755)
    completion.write(PARSER, tmp_path / "made")
    for name in FILES.values():
        path = tmp_path / "made" / name
        path.write_text(path.read_text().replace(str(completion.JAILS_D), str(jails_d)))
    return tmp_path


def environment(folder: Path) -> dict[str, str]:
    return {
        "PATH": f"{folder}/bin:/usr/bin:/bin",
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
        "COLUMNS": "200",
    }


Ask = Callable[[str], set[str]]
"""Returns what a shell offers for a line, of which the last word is to be completed."""


def bash(folder: Path) -> Iterator[Ask]:
    def ask(line: str) -> set[str]:
        words = line.split(" ")
        program = (
            f'source "{folder}/made/mobility.bash"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
            "_mobility; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        argv = ["bash", "--norc", "--noprofile", "-c", program, "bash", *words]
        return set(ran(argv, folder).split())

    yield ask


def fish(folder: Path) -> Iterator[Ask]:
    def ask(line: str) -> set[str]:
        program = f'source "{folder}/made/mobility.fish"; complete -C "$argv"'
        lines = ran(["fish", "--no-config", "-c", program, line], folder).splitlines()
        return {each.partition("\t")[0] for each in lines}

    yield ask


def ran(argv: list[str], folder: Path) -> str:
    return subprocess.run(
        argv, env=environment(folder), cwd=folder, capture_output=True, text=True, check=False, timeout=PATIENCE
    ).stdout


class Terminal:
    """A shell at a terminal: what completes there is bound to keys."""

    def __init__(self, argv: list[str], folder: Path) -> None:
        self._said = ""
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            # at a dumb one tcsh edits no line
            os.execve(argv[0], argv, environment(folder) | {"TERM": "vt100"})
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 100, 200, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def until(self, mark: str) -> str:
        """Return what is printed up to a mark."""
        end = time.monotonic() + PATIENCE
        while mark not in self._said:
            ready, _, _ = select.select([self._terminal], [], [], max(0.0, end - time.monotonic()))
            assert ready, self._said
            self._said += os.read(self._terminal, 4096).decode(errors="replace")
        said, _, self._said = self._said.partition(mark)
        return said

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._terminal)


#: As completion widgets of zsh's own do it (zshcompwid(1), compadd): -O returns the matches, and adds none.
CAPTURE = """
compadd() {
    if [[ " $* " == *" -"(O|A|D)" "* ]]; then builtin compadd "$@"; return; fi
    local -a found
    builtin compadd -O found "$@"
    (( $#found )) && print -rl -- $found >> $HOME/offered
    builtin compadd "$@"
}
ask() { zle complete-word; zle kill-buffer; print END'-OF-'IT }
zle -N ask
bindkey -e
bindkey '^X' ask
setopt no_beep no_list_beep
PS1=
print READY'-NOW'
"""


def zsh(folder: Path) -> Iterator[Ask]:
    (folder / "rc").write_text(
        f"autoload -U compinit\ncompinit -D\nsource {folder}/made/_mobility\n{CAPTURE}",
    )
    terminal = Terminal(["/usr/bin/zsh", "-f", "-i"], folder)
    terminal.type(f"source {folder}/rc\n")
    terminal.until("READY-NOW")
    offered = folder / "offered"

    def ask(line: str) -> set[str]:
        offered.write_text("")
        terminal.type(f"{line}\x18")
        terminal.until(END)
        return set(offered.read_text().splitlines())

    yield ask
    terminal.close()


def tcsh(folder: Path) -> Iterator[Ask]:
    terminal = Terminal([shutil.which("tcsh") or "", "-f"], folder)
    terminal.type(f"set prompt = 'P''> '; source {folder}/made/mobility.tcsh\n")
    terminal.until("P> ")

    def ask(line: str) -> set[str]:
        # ^D lists what there is, ^U takes the line back; then comes what its answer is known of
        terminal.type(f"{line}\x04\x15echo END'-OF-'IT\n")
        said = terminal.until(f"{END}\r")
        terminal.until("P> ")
        _, *listed = said.partition("echo END")[0].split("\n")
        return set(" ".join(listed[:-1]).split())

    yield ask
    terminal.close()


ASKED: dict[str, Callable[[Path], Iterator[Ask]]] = {"bash": bash, "zsh": zsh, "fish": fish, "tcsh": tcsh}


@pytest.fixture(params=list(SHELLS))
def shell(request: pytest.FixtureRequest, scripts: Path) -> Iterator[Ask]:
    name = request.param
    if not shutil.which(name):
        pytest.skip(f"needs {name}")
    yield from ASKED[name](scripts)


def test_commands(shell: Ask) -> None:
    offered = shell("mobility ")
    assert {each for each in offered if not each.startswith("-")} == set(COMMANDS)
    assert shell("mobility un") == {"undrain"}
    assert shell("mobility nothing") <= {""}


def test_options_are_those_of_the_parser(shell: Ask) -> None:
    for name, parser in COMMANDS.items():
        known = {flag for flag in options(parser) if flag.startswith("--")}
        assert shell(f"mobility {name} --") == known, name


def test_words_that_an_option_or_a_place_takes(shell: Ask) -> None:
    def words(line: str) -> set[str]:
        return {each for each in shell(line) if not each.startswith("-")}

    assert words("mobility agent --log-format ") == {"text", "json"}
    assert words("mobility agent --config x.toml --log-to s") == {"stderr", "syslog"}
    assert words("mobility hooks ") == {"install", "remove", "status"}
    assert words("mobility hooks install ") == {"bastille", "iocage", "jail.conf"}
    assert words("mobility hooks --json install ba") == {"bastille"}
    assert words("mobility completion ") == set(SHELLS)


def test_jails_come_from_their_files_and_from_jls(shell: Ask, scripts: Path) -> None:
    for line in ("mobility drain ", "mobility hooks install bastille ", "mobility status --json web1 "):
        assert {each for each in shell(line) if not each.startswith("-")} == set(NAMES), line
    assert shell("mobility undrain we") == {"web1", "web2"}
    assert shell("mobility reload we") <= {""}
    # where a name is a word of a shell's language, and where the line itself is
    shell("mobility drain $(touch pwned) ")
    shell("mobility $(touch pwned) ")
    assert not (scripts / "pwned").exists()


def test_files(shell: Ask, scripts: Path) -> None:
    (scripts / "other.toml").touch()
    assert {each.strip() for each in shell("mobility status --config oth")} == {"other.toml"}


def test_without_jails_and_without_jls_it_is_silent(shell: Ask, scripts: Path) -> None:
    shutil.rmtree(scripts / "jails.d")
    (scripts / "bin" / "jls").unlink()
    assert {each for each in shell("mobility drain ") if not each.startswith("-")} <= {""}


# -- what is installed


@pytest.mark.parametrize("name", SHELLS)
def test_the_command_prints_it_without_any_configuration(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", name]) == cli.EX_OK
    assert capsys.readouterr().out == SHELLS[name](PARSER)


@pytest.mark.parametrize("name", SHELLS)
def test_the_files_that_are_installed_are_those(name: str) -> None:
    path = DEPLOY / "completion" / FILES[name]
    assert path.read_text() == SHELLS[name](PARSER), f"{path} is old: python -m tests.unit.test_completion"


if __name__ == "__main__":  # after a change of the commands: python -m tests.unit.test_completion
    completion.write(PARSER, DEPLOY / "completion")
