"""jexec(8) of FreeBSD 13.2. Source: usr.sbin/jexec/jexec.c; freebsd-13.2/2-vnet.txt.

A command of the lab that the jail has (every jail whose path is / has them all; another one needs a file of that name
in its own tree) is run by the same client, inside; any other program is Linux's.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from tests.lab.commands.support import BadOption, Caller, Enter, Output, getopt
from tests.lab.kernel import trees
from tests.lab.kernel.errors import Errno, Refused
from tests.lab.kernel.state import Jail

SYSTEM_DIRECTORIES = ("/sbin", "/bin", "/usr/sbin", "/usr/bin")
CLEAN_PATH = "/bin:/usr/bin"  # with -l
USAGE = """usage: jexec [-l] [-u username | -U username] jail [command ...]
"""


def main(arguments: list[str], caller: Caller, output: Output) -> Enter:
    """Enter the jail; Exit with 1 when it is not there or the caller may not."""
    try:
        options, rest = getopt("jexec", arguments, "lnu:U:", output)
    except BadOption:
        rest = []
        options = []
    flags = dict(options)
    if not rest or {"u", "U"} <= flags.keys():
        output.fail(1, USAGE.rstrip())
    try:
        jail = caller.machine.find(caller.jail, rest[0])
    except Refused as refused:
        output.fail(1, f"jexec: {refused.message}")
    if not caller.root:
        output.fail(1, f"jexec: jail_attach({jail.jid}): {Errno.EPERM.value}")
    root = "" if jail.path == "/" else jail.path
    command = rest[1:] or ["/bin/sh"]
    name = lab_command(jail, command[0])
    if name is not None:
        return Enter(jail, [name, *command[1:]], lab=True)
    if "l" in flags:
        keep = {"HOME": "/root", "SHELL": "/bin/sh", "USER": "root", "PATH": CLEAN_PATH}
        command = ["/usr/bin/env", "-i", *(f"{key}={value}" for key, value in keep.items()), *command]
    return Enter(jail, command, lab=False, root=root, user=flags.get("u", "") or flags.get("U", ""))


def lab_command(jail: Jail, program: str) -> str | None:
    """The name of the lab's command that *program* is in this jail, or None."""
    from tests.lab.commands import COMMANDS  # here, because they name each other

    path = PurePosixPath(program)
    if path.name not in COMMANDS:
        return None
    if program != path.name and not (str(path.parent) in SYSTEM_DIRECTORIES or path.parent.name == "bin"):
        return None
    if jail.path == "/":
        return path.name
    places = SYSTEM_DIRECTORIES if program == path.name else (str(path.parent),)
    for place in places:
        if trees.resolve(jail.path, f"{place}/{path.name}") is not None:
            return path.name
    return None
