"""deploy/fabric: each router reads its file, and all say the same. That they do what they say: tests/interop, tests/lab."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from mobility import config
from mobility.model import Prefix
from tests.fabric import FOLDER, Neighbor, made_out
from tests.readme import DEPLOY, PATH

#: What reads a file without running it: the program and its words before the file.
CHECKS = {
    "bird": ["bird", "-p", "-c"],
    "frr": ["vtysh", "-C", "-f"],
    "openbgpd": ["/usr/sbin/bgpd", "-n", "-f"],
    "gobgpd": ["gobgpd", "--dry-run", "-f"],
}
FILES = sorted(path.name for path in FOLDER.iterdir())
ROUTERS = [name for name in FILES if "route-server" not in name]
#: How each says that MED is compared between neighbours of different AS.
MED = {
    "bird.conf": "med metric on;",
    "frr.conf": " bgp always-compare-med\n",
    "openbgpd.conf": "rde med compare always\n",
    "gobgpd.toml": "always-compare-med = true\n",
}
#: The host routes in a prefix of each family, in each one's words.
JAILS: dict[str, Callable[[str, int], str]] = {
    "bird": lambda prefix, length: f"[ {prefix}{{{length},{length}}} ]",
    "frr": lambda prefix, length: f"permit {prefix} ge {length}\n",
    "openbgpd": lambda prefix, length: f"{prefix} prefixlen = {length}",
    "gobgpd": lambda prefix, length: f'ip-prefix = "{prefix}"\n    masklength-range = "{length}..{length}"\n',
}


def router(name: str) -> str:
    """Return whose file it is: bird-route-server.conf is BIRD's."""
    return re.split(r"[-.]", name)[0]


def check(path: Path) -> subprocess.CompletedProcess[str]:
    """Have the router read a file."""
    argv = CHECKS[router(path.name)]
    if not shutil.which(argv[0]):
        pytest.skip(f"needs {argv[0]}")
    path.chmod(0o600)  # OpenBGPD reads no other
    return subprocess.run([*argv, path], capture_output=True, text=True, check=False, cwd=path.parent)


@pytest.mark.parametrize("name", FILES)
def test_the_router_reads_its_file(tmp_path: Path, name: str) -> None:
    shutil.copy(FOLDER / name, tmp_path)
    read = check(tmp_path / name)
    assert read.returncode == 0, read.stdout + read.stderr


@pytest.mark.parametrize("name", FILES)
def test_it_is_read_with_all_its_choices_too(tmp_path: Path, name: str) -> None:
    text, choices = re.subn(r"^[#!]:", "", (FOLDER / name).read_text(), flags=re.MULTILINE)
    assert choices
    (tmp_path / name).write_text(text)
    read = check(tmp_path / name)
    assert read.returncode == 0, read.stdout + read.stderr


@pytest.mark.parametrize("name", FILES)
def test_the_router_would_say_if_it_could_not(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text((FOLDER / name).read_text() + "\nthis is = no configuration\n")
    assert check(tmp_path / name).returncode != 0


@pytest.mark.parametrize("name", FILES)
def test_it_is_read_with_other_hosts_too(tmp_path: Path, name: str) -> None:
    hosts = [Neighbor(f"host{n}", f"fd0{n}::1", "fd09::ff", 65100 + n) for n in range(3)]
    text = made_out(name, hosts)
    assert all(str(host.number) in text and host.address in text for host in hosts)
    assert "65001" not in text
    (tmp_path / name).write_text(text)
    read = check(tmp_path / name)
    assert read.returncode == 0, read.stdout + read.stderr


def test_there_is_one_for_each_router() -> None:
    assert {router(name) for name in ROUTERS} == set(CHECKS)
    assert set(MED) == set(ROUTERS)


@pytest.mark.parametrize("name", ROUTERS)
def test_med_is_compared_between_hosts(name: str) -> None:
    assert MED[name] in (FOLDER / name).read_text()


def allowed() -> tuple[Prefix, ...]:
    """Return what the sample allows."""
    sample = DEPLOY / "mobility.toml.sample"
    # not by config.load, which looks at the file's mode: here that is git's, and the umask's
    read, _ = config.parse(tomllib.loads(sample.read_text()), sample)
    return read.host.allowed


@pytest.mark.parametrize("name", FILES)
def test_router_and_hosts_agree_on_what_jails_may_hold(name: str) -> None:
    text = (FOLDER / name).read_text()
    for prefix in allowed():
        assert JAILS[router(name)](str(prefix), 32 if prefix.version == 4 else 128) in text


@pytest.mark.parametrize("name", FILES)
def test_each_says_how_it_is_checked_and_is_in_the_manual(name: str) -> None:
    text = (FOLDER / name).read_text()
    argv = CHECKS[router(name)]
    assert f"{Path(argv[0]).name} {' '.join(argv[1:])} {name}\n" in text
    assert f"deploy/fabric/{name}" in PATH.read_text()
    assert max(map(len, text.splitlines())) <= 132
