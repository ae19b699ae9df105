"""What the doctor says of a failover: each thing that is not as it should be, and the command that mends it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mobility.doctor.failover import failover_verdicts
from mobility.doctor.verdict import Level, Verdict
from mobility.failover.model import BACKUP, INIT, MASTER, Carp, Pfsync, Seen, Vhid

ONE, TWO = Vhid("igb0", 1), Vhid("igb0", 2)
GOOD = Seen(
    (Carp(ONE, MASTER), Carp(TWO, BACKUP)),
    Pfsync(present=True, up=True, syncdev="igb1", syncpeer="10.99.0.2", syncok=True, bulk=False),
    demotion=0,
    preempt=True,
    pfsync_factor=240,
    ifdown_factor=240,
)
AGENT: dict[str, Any] = {
    "groups": [{"name": "gw", "stance": "preferred", "reason": "MASTER"}],
    "demotion": {"total": 0, "ours": 0, "lines": [], "reason": ""},
    "problems": [],
}


def judged(
    seen: Seen = GOOD, *, devd: bool = True, release: int = 1302001, agent: dict[str, Any] | None = AGENT
) -> dict[str, list[Verdict]]:
    found: dict[str, list[Verdict]] = {}
    for verdict in failover_verdicts(
        {"gw": (ONE, TWO)}, pfsync=True, seen=seen, release=release, devd=devd, agent=agent
    ):
        found.setdefault(verdict.what, []).append(verdict)
    return found


def levels(verdicts: list[Verdict]) -> list[Level]:
    return [verdict.level for verdict in verdicts]


def test_all_is_well() -> None:
    verdicts = [verdict for several in judged().values() for verdict in several]
    assert {verdict.level for verdict in verdicts} == {Level.OK}
    assert "1@igb0 MASTER, 2@igb0 BACKUP" in [verdict.why for verdict in verdicts]


def test_no_carp() -> None:
    (verdict,) = judged(Seen())["failover: carp"]
    assert (verdict.level, "kldload carp" in verdict.mend) == (Level.FAIL, True)


def test_no_preempt() -> None:
    (verdict,) = judged(replace(GOOD, preempt=False))["failover: preempt"]
    assert verdict.level is Level.FAIL
    assert "sysctl net.inet.carp.preempt=1" in verdict.mend
    assert "other node" in verdict.mend


def test_a_vhid_that_is_not_there_and_one_without_a_link() -> None:
    missing, down, told = judged(replace(GOOD, carps=(Carp(ONE, INIT),)))["failover gw"]
    assert (missing.level, missing.why) == (Level.FAIL, "2@igb0 is not there")
    assert (down.level, down.mend) == (Level.WARN, "ifconfig igb0")
    assert told.why == "preferred: MASTER"


def test_pfsync() -> None:
    for pfsync, level, words in (
        (Pfsync(), Level.FAIL, "there is no pfsync0"),
        (Pfsync(present=True), Level.FAIL, "is switched off"),
        (Pfsync(present=True, up=True), Level.FAIL, "has no syncdev"),
        (replace(GOOD.pfsync, syncok=False, bulk=True), Level.WARN, "has not got them all"),
        (replace(GOOD.pfsync, version=1400), Level.OK, "in step with 10.99.0.2 on igb1, version 1400"),
    ):
        (verdict,) = judged(replace(GOOD, pfsync=pfsync))["failover: pfsync"]
        assert (verdict.level, words in verdict.why) == (level, True)
    (old,) = judged(replace(GOOD, pfsync=Pfsync()))["failover: pfsync"]
    (new,) = judged(replace(GOOD, pfsync=Pfsync()), release=1400097)["failover: pfsync"]
    assert ("syncpeer=ADDRESS" in old.mend, "syncpeer=ff12::f0" in new.mend) == (True, True)


def test_whose_demotion_it_is() -> None:
    demoted = replace(GOOD, demotion=480)
    told = AGENT | {
        "demotion": {"total": 480, "ours": 240, "lines": ["480: 240 is mobility's"], "reason": "this host is drained"}
    }
    assert [verdict.why for verdict in judged(demoted, agent=told)["failover: demotion"]] == [
        "480: 240 is mobility's",
        "mobility's, because this host is drained",
    ]
    (silent,) = judged(demoted, agent=None)["failover: demotion"]
    assert (silent.level, silent.mend) == (Level.WARN, "service mobility start")


def test_no_devd_and_what_the_agent_complains_of() -> None:
    found = judged(devd=False, agent=AGENT | {"problems": ["something"]})
    assert levels(found["failover: devd"]) == levels(found["failover"]) == [Level.WARN]
