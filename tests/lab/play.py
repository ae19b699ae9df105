"""A lab to play with: two hosts with agent and ExaBGP, a router, a client, kept until you press return.

python -m tests.lab.play      # as root; says how to run commands on each

web1 may run on both hosts, with deploy/fabric's BIRD between them, so that each host is shown the other's claims.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

if os.geteuid() != 0:
    sys.exit("play: needs root, because the lab makes hosts: run it as root")

from tests.lab.topology import REPOSITORY, Host, Lab, Node  # importing these without root is an error

ADDRESSES = ("198.51.100.7/32", "2001:db8:7::7/128")
#: Seconds between looks, and of a drain: somebody sits there and waits.
QUICK = {"look_every": 3.0, "drain_for": 1.0}


def entrance(node: Node, conf: Host | None = None) -> str:
    """Return a shell script that runs its arguments there; on a host `mobility` and `jail` have that host's files."""
    there = shlex.join(node.prefix)
    lines = ["#!/bin/sh", *(f"export {key}={shlex.quote(text)}" for key, text in node.ground.environment().items())]
    lines.append(f"cd {shlex.quote(str(REPOSITORY))} || exit")
    if conf is not None:
        mobility = shlex.join([*node.prefix, sys.executable, "-m", "mobility"])
        lines += [
            "case $1 in",
            f'mobility) shift; command=$1; shift; exec {mobility} "$command" --config {shlex.quote(str(conf.config))} "$@" ;;',
            f'jail) shift; exec {there} jail -f {shlex.quote(str(conf.jail_conf))} "$@" ;;',
            "esac",
        ]
    return "\n".join([*lines, f'exec {there} "$@"', ""])


def put(folder: Path, node: Node, name: str, conf: Host | None = None) -> None:
    """Write the script of a node."""
    path = folder / name
    path.write_text(entrance(node, conf))
    path.chmod(0o755)


def main() -> None:
    """Make it, say how to use it, and wait."""
    with Lab(hosts=2) as lab:
        router = (REPOSITORY / "deploy" / "fabric" / "bird.conf").read_text()
        # its log is what tells the lab that a session is up
        for old, new in {"log syslog all;": "log stderr all;", "passive on;": "passive on; debug { states };"}.items():
            router = router.replace(old, new)
        lab.spine.configure(router)
        lab.start(agent=QUICK)
        folder = lab.ground.folder / "play"
        folder.mkdir()
        put(folder, lab.client, "client")
        for host in lab.hosts:
            host.define_jail("web1", ADDRESSES)
            put(folder, host, host.name, host)
        print(f"PATH={folder}:$PATH     # in another shell, then:")
        print("a jail -c web1; a mobility status; client ping -c 1 198.51.100.7; b mobility explain web1")
        for host in lab.hosts:
            print(f"{host.name}: {host.config}, {host.jails_d}, {host.folder}/agent.log")
        print("return ends it: ", end="", flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main()
