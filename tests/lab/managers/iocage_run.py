"""Runs an iocage's own library, unmodified: `iocage_run.py SOURCE start|stop|force-stop|get|set|rename NAME [ARGUMENT]`.

The third parties' modules that it imports are stood in for by modules with nothing in them, but for netifaces, which asks
ifconfig(8) and netstat(1): starting and stopping a jail need no others. The kernel's release is what uname(1) says.
"""

from __future__ import annotations

import collections
import collections.abc
import ctypes
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import re
import subprocess
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: Third parties' modules that iocage imports (its requirements.txt).
OTHERS = ("dns", "git", "jsonschema", "netifaces", "requests", "six", "texttable")


def _said(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def interfaces() -> list[str]:
    """netifaces.interfaces."""
    return _said("ifconfig", "-l").split()


def gateways() -> dict[str, Any]:
    """netifaces.gateways, as far as the default routes go: {"default": {2: (GATEWAY, INTERFACE)}}."""
    families = json.loads(_said("netstat", "-rn", "--libxo", "json"))["statistics"]["route-information"]["route-table"]
    default = {}
    for family in families["rt-family"]:
        for entry in family.get("rt-entry", ()):
            if entry["destination"] == "default":
                number = 2 if family["address-family"] == "Internet" else 28
                default[number] = (entry["gateway"], entry["interface-name"])
    return {"default": default}


def ifaddresses(interface: str) -> dict[int, list[dict[str, str]]]:
    """netifaces.ifaddresses: addresses by family."""
    found: dict[int, list[dict[str, str]]] = collections.defaultdict(list)
    for word, address in re.findall(r"^\t(ether|inet6?) ([^ %\n]+)", _said("ifconfig", interface), re.MULTILINE):
        found[{"ether": 18, "inet": 2, "inet6": 28}[word]].append({"addr": address})
    return dict(found)


class Nothing(types.ModuleType):
    """A module in which every name is a class without content."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Exception,), {})


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of OTHERS."""

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Take on the modules of OTHERS, and those in them."""
        return importlib.util.spec_from_loader(fullname, self) if fullname.split(".")[0] in OTHERS else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """Make it."""
        module = Nothing(spec.name)
        module.__path__ = []  # it has modules in it
        if spec.name == "netifaces":
            for name, value in {"AF_INET": 2, "AF_INET6": 28, "AF_LINK": 18}.items():
                setattr(module, name, value)
            for function in (interfaces, gateways, ifaddresses):
                setattr(module, function.__name__, function)
        if spec.name == "six":
            module.text_type = str  # type: ignore[attr-defined]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Leave it as it is."""


class Libc:
    """FreeBSD's getfsent(3), strvis(3) and strunvis(3), for jails whose fstab is empty and whose names are plain."""

    def __init__(self) -> None:
        self._fstab = b""

    def setfstab(self, path: bytes) -> int:
        """Choose the file; 1 where it can be used."""
        self._fstab = path
        return int(Path(path.decode()).stat().st_size == 0)

    def getfstab(self) -> bytes:
        """Return the file chosen."""
        return self._fstab

    def getfsent(self) -> None:
        """Return the next entry."""

    def endfsent(self) -> None:
        """Close the file."""

    def strvis(self, target: ctypes.Array[ctypes.c_char], text: bytes, _flags: int) -> None:
        """Encode what is not plain."""
        target.value = text

    def strunvis(self, target: ctypes.Array[ctypes.c_char], text: bytes, _flags: int) -> None:
        """Decode it."""
        target.value = text


def main(source: str, verb: str, name: str, *arguments: str) -> None:
    """Do what the command line says."""
    system = os.uname()
    release = _said("uname", "-r").strip()
    os.uname = lambda: os.uname_result(("FreeBSD", system[1], release, *system[3:]))
    sys.path.insert(0, source)
    sys.dont_write_bytecode = True
    sys.meta_path.insert(0, StandIns())
    import iocage_lib.ioc_fstab  # type: ignore[import-not-found]
    from iocage_lib.iocage import IOCage  # type: ignore[import-not-found]

    iocage_lib.ioc_fstab.LIBC = Libc()
    # it is written for Python 3.9 (ioc_exceptions.py, CommandFailed): later ones would hide what failed
    collections.Iterable = collections.abc.Iterable  # type: ignore[attr-defined]
    jail = IOCage(jail=name)
    if verb == "get":
        print(jail.get(*arguments))
    elif verb in ("set", "rename"):
        getattr(jail, verb)(*arguments)
    else:
        {"start": jail.start, "stop": jail.stop, "force-stop": lambda: jail.stop(force=True)}[verb]()


if __name__ == "__main__":
    main(*sys.argv[1:])
