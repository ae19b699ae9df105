"""A fresh lab machine for one script.

It has nothing but lo0, pflog0 and pfsync0, a /tmp of its own, and FreeBSD's commands in /sbin.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.lab.kernel import client
from tests.lab.kernel.releases import DEFAULT

#: What makes the mount namespace: /tmp is empty but for the lab's own folder (and this repository, should it lie there),
#: and /sbin holds the lab's commands before Linux's, as FreeBSD has its own there. Nothing of it is seen outside. $1: the
#: lab's folder, $2: the repository. /dev has the usual few, and devctl.
_MOUNTS = """
set -e
lab=$1 repository=$2; shift 2
sbin=$(realpath /sbin)
mkdir -p "$lab/mnt/linux" "$lab/mnt/sbin" "$lab/mnt/tmp/${lab##*/}"
mount --bind "$sbin" "$lab/mnt/linux"
ln -s "$lab/mnt/linux/"* "$lab/mnt/sbin/"
ln -sf "$lab/bin/"* "$lab/mnt/sbin/"
mount --bind "$lab/mnt/sbin" "$sbin"
mount --rbind "$lab" "$lab/mnt/tmp/${lab##*/}"
case $repository in /tmp/*) mkdir -p "$lab/mnt$repository"; mount --rbind "$repository" "$lab/mnt$repository" ;; esac
mkdir "$lab/mnt/dev"
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty "$lab/mnt/dev/"
ln -s /proc/self/fd "$lab/mnt/dev/fd"
for n in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${n%:*}" "$lab/mnt/dev/${n#*:}"; done
ln -s "$lab/devctl" "$lab/mnt/dev/devctl"
mount --rbind "$lab/mnt/tmp" /tmp
mount --rbind "$lab/mnt/dev" /dev
exec "$@"
"""
#: Seconds that a script may take; the longest (14-dying) sleeps for a good 80 of them.
LIMIT = 240.0
CUT = "[the script was ended after {:.0f} s]\n"


def transcript(prelude: Path, script: Path, limit: float = LIMIT) -> str:
    """Run a script after the prelude on a machine of its own; return all that it printed, in order.

    What is still running after `limit` seconds is ended, and the text says so at its end.
    """
    return run(
        ('. "$0"; . "$1"', prelude.name, script.name),
        {each.name: each.read_text() for each in (prelude, script)},
        limit=limit,
    )


def run(shell: Sequence[str], files: Mapping[str, str], *, kernel: str = DEFAULT.name, limit: float = LIMIT) -> str:
    """Run `sh -c` with these words on a machine of its own; return all that it printed, in order.

    `files` are put into the lab's folder by their names (folders are made); words after the first that name one of
    them are made absolute. `kernel` is what the lab plays. What is still running after `limit` seconds is ended, and
    the text says so at its end.
    """
    with client.start(kernel=kernel) as running:
        lab = running.directory
        for name, text in files.items():
            (lab / name).parent.mkdir(parents=True, exist_ok=True)
            (lab / name).write_text(text)
        words = [shell[0], *(str(lab / word) if word in files else word for word in shell[1:])]
        mounts = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _MOUNTS, "sh"]
        mounts += [str(lab), str(client.REPOSITORY)]
        printed = lab / "transcript"
        with printed.open("wb") as output:
            process = subprocess.Popen(
                [*mounts, *running.enter(), "sh", "-c", *words],
                env={"PATH": running.environment()["PATH"], "HOME": "/root"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
            )
            try:
                process.wait(limit)
                end = ""
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                end = CUT.format(limit)
        return printed.read_text(errors="backslashreplace") + end
