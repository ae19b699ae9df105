"""A lab machine on paper: FreeBSD's commands and rules without Linux underneath."""

from __future__ import annotations

import shlex

from tests.lab.commands import COMMANDS
from tests.lab.commands.support import Caller, Enter, Execute, Exit, Output
from tests.lab.kernel.linux import Paper
from tests.lab.kernel.machine import Machine
from tests.lab.kernel.releases import DEFAULT, RELEASES
from tests.lab.kernel.state import Jail


class Host:
    """One machine and a shell on it."""

    def __init__(self, kernel: str = DEFAULT.name) -> None:
        self.now = 0.0
        played = RELEASES[kernel]
        self.machine = Machine(Paper(), clock=lambda: self.now, boot_id=bytes(range(16)), kernel=played)

    def run(self, line: str, *, jail: Jail | None = None, root: bool = True) -> tuple[str, int]:
        """Run a command line; answer what it printed (errors first) and its status."""
        return self.call(shlex.split(line), jail=jail, root=root)

    def call(self, words: list[str], *, jail: Jail | None = None, root: bool = True) -> tuple[str, int]:
        """Run a command given as words, following jexec into the jail."""
        output = Output()
        try:
            order = COMMANDS[words[0]](words[1:], Caller(self.machine, jail or self.machine.root, root), output)
        except Exit as exit_:
            return "".join(text for _stream, text in output.chunks), exit_.code
        if isinstance(order, Enter) and order.lab:
            return self.call(order.arguments, jail=order.jail, root=root)
        if isinstance(order, Enter | Execute):
            return f"-> {' '.join(order.arguments)}", 0
        return "".join(text for _stream, text in output.chunks), 0

    def jail(self, name: str, parameters: dict[str, str] | None = None, *, parent: Jail | None = None) -> Jail:
        """Make a persistent vnet jail."""
        given = {"name": name, "persist": "", "vnet": "new"} | (parameters or {})
        return self.machine.create(parent or self.machine.root, given)
