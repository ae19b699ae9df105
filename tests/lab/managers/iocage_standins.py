"""What iocage calls and Linux lacks, as far as it reads the answers: ZFS on plain folders, and what has nothing to do here.

Run as `iocage_standins.py COMMAND [ARGUMENT…]`, with the pool's folder in LAB_POOL: its own name is the pool's, a folder
in it that iocage treats as one is a dataset, mounted at its path. Sources: zfs(8), zpool(8), devfs(8), rctl(8), sysrc(8).
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

POOL = Path(os.environ.get("LAB_POOL", "/"))
#: One level of each of these is datasets (iocage_lib/ioc_check.py, __check_datasets__; ioc_create.py: NAME and NAME/root).
DATASETS = ("iocage", "iocage/*", "iocage/jails/*", "iocage/jails/*/root", "iocage/templates/*")


def datasets() -> dict[str, Path]:
    """All datasets, by name."""
    found = {POOL.name: POOL}
    for pattern in DATASETS:
        found |= {f"{POOL.name}/{path.relative_to(POOL)}": path for path in POOL.glob(pattern) if path.is_dir()}
    return dict(sorted(found.items()))


def properties(name: str, path: Path) -> dict[str, str]:
    """The properties of a dataset that iocage looks at."""
    active = {"org.freebsd.ioc:active": "yes"} if path == POOL else {}
    return {
        "type": "filesystem",
        "mountpoint": str(path),
        "mounted": "yes",
        "encryption": "off",
        "name": name,
        **active,
    }


def zfs(words: list[str]) -> int:
    """`zfs list`, `zfs get` and `zfs rename [-f] OLD NEW`; what else would change something is refused."""
    known = datasets()
    if words[0] == "rename":
        known[words[-2]].rename(POOL.parent / words[-1])
        return 0
    if "snapshot" in words:
        return 0  # there are none
    options = [word for word in words if word.startswith("-")]
    names = [word for word in words[1:] if word in known or word.startswith(POOL.name)]
    if any(name not in known for name in names):
        print(f"cannot open '{names[-1]}': dataset does not exist", file=sys.stderr)
        return 1
    deep = any("r" in option for option in options) or not names
    chosen = [each for each in known if not names or each in names or (deep and each.startswith((*_below(names),)))]
    if words[0] == "list":
        print("\n".join(chosen))
        return 0
    if words[0] != "get":
        print(f"zfs {words[0]}: not in this lab", file=sys.stderr)
        return 2
    columns = words[words.index("-o") + 1].split(",")
    for each in chosen:
        for key, value in properties(each, known[each]).items():
            row = {"name": each, "property": key, "value": value}
            print("\t".join(row[column] for column in columns))
    return 0


def _below(names: list[str]) -> list[str]:
    return [f"{name}/" for name in names]


def zpool(words: list[str]) -> int:
    """`zpool list` and `zpool get` of the one pool."""
    columns = words[words.index("-o") + 1].split(",")
    values = {"name": POOL.name, "health": "ONLINE", "property": "health", "value": "ONLINE"}
    print("\t".join(values[column] for column in columns))
    return 0


def devfs(words: list[str]) -> int:
    """`devfs rule showsets` shows what a fresh FreeBSD has; rules are taken and forgotten: the lab has no devfs."""
    if words == ["rule", "showsets"]:
        print("\n".join("12345"))
    return 0


def rctl(_words: list[str]) -> int:
    """No accounting in this kernel (rctl(8), kern.racct.enable=0)."""
    print("rctl: RACCT/RCTL present, but disabled; enable using kern.racct.enable=1 tunable", file=sys.stderr)
    return 1


def sysrc(words: list[str]) -> int:
    """`sysrc -f FILE NAME=VALUE` and `sysrc -f FILE -x NAME`."""
    path = Path(words[1])
    name, _, value = words[-1].partition("=")
    lines = [line for line in path.read_text().splitlines() if not re.match(rf"{re.escape(name)}=", line)]
    if "-x" not in words:
        lines.append(f'{name}="{value}"')
    path.write_text("".join(f"{line}\n" for line in lines))
    return 0


def mount(_words: list[str]) -> int:
    """Nothing is mounted in the lab's jails, so nothing is there to take away."""
    return 0


COMMANDS = {"zfs": zfs, "zpool": zpool, "devfs": devfs, "rctl": rctl, "sysrc": sysrc, "mount": mount, "umount": mount}

if __name__ == "__main__":
    sys.exit(COMMANDS[sys.argv[1]](sys.argv[2:]))
