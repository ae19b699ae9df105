"""deploy/: what is there can be used as it is, and says what the program does. For FreeBSD's part see tests/unit/deploy."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from mobility import config
from tests.readme import DEPLOY
from tests.unit.test_readme import known_settings

SAMPLE = DEPLOY / "mobility.toml.sample"
#: A comment that is a setting: "# key = value".
SETTING = re.compile(r"^# ([a-z_0-9]+ = \S.*)$", re.MULTILINE)


# -- mobility.toml.sample


def uncommented() -> str:
    return SETTING.sub(r"\1", SAMPLE.read_text())


def test_the_sample_has_every_setting() -> None:
    data = tomllib.loads(uncommented())
    (peer,) = data["bgp"].pop("peer")
    found = {f"{section}.{key}" for section, values in data.items() for key in values}
    # those of [failover.NAME] are in tests/unit/failover/test_config.py
    others = {name for name in known_settings() if not name.startswith("failover.")}
    assert found | {f"bgp.peer.{key}" for key in peer} == others


def test_what_the_sample_has_as_comments_are_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "short").write_text(SAMPLE.read_text())
    # gateways are for uplinks only, and a TTL for routers that are further away
    (tmp_path / "long").write_text(re.sub(r"^(uplink_ipv|multihop).*\n", "", uncommented(), flags=re.MULTILINE))
    short, long = config.load(tmp_path / "short"), config.load(tmp_path / "long")
    (peer,) = short.bgp.peers
    # what has no fixed default: it is taken from the host, or from where Python is, or there is none
    peers = (replace(peer, next_hop_ipv4=long.bgp.peers[0].next_hop_ipv4),)
    bgp = replace(short.bgp, peers=peers, bridge_command=long.bgp.bridge_command)
    assert replace(short, path=long.path, host=replace(short.host, name=long.host.name), bgp=bgp) == long


# -- the router


@pytest.mark.skipif(not shutil.which("bird"), reason="needs BIRD 2 (apt-get install bird2)")
def test_bird_reads_its_configuration() -> None:
    read = subprocess.run(["bird", "-p", "-c", DEPLOY / "fabric" / "bird.conf"], capture_output=True, text=True)
    assert read.returncode == 0, read.stderr


def test_the_router_and_the_hosts_agree_on_what_jails_may_hold() -> None:
    router = (DEPLOY / "fabric" / "bird.conf").read_text()
    # not by config.load, which looks at the file's mode: here that is git's, and the umask's
    read, _ = config.parse(tomllib.loads(SAMPLE.read_text()), SAMPLE)
    for prefix in read.host.allowed:
        length = 32 if prefix.version == 4 else 128
        assert f"[ {prefix}{{{length},{length}}} ]" in router
