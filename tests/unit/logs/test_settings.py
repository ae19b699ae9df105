"""[log] of mobility.toml, and what is told of values that are wrong there or may hold a password."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mobility import config, logs
from mobility.config import Problem
from mobility.reload import compare

PEER = {"name": "spine", "address": "fd00:1::ff", "as": 65000, "local_address": "fd00:1::1"}
MINIMAL: dict[str, Any] = {
    "host": {"name": "a", "allowed": ["198.51.100.0/24"]},
    "bgp": {"as": 65001, "router_id": "10.0.0.1", "peer": [PEER]},
}
SECRET = "s3cret#(1)"


def parsed(**sections: Any) -> tuple[config.Config, list[Problem]]:
    return config.parse({**MINIMAL, **sections}, Path("mobility.toml"))


def test_the_defaults() -> None:
    loaded, problems = parsed()
    assert not problems
    assert (loaded.log.burst, loaded.log.per_second) == (logs.BURST, logs.PER_SECOND)


def test_what_is_set() -> None:
    loaded, problems = parsed(log={"burst": 0, "per_second": 3})
    assert not problems
    assert (loaded.log.burst, loaded.log.per_second) == (0, 3.0)


@pytest.mark.parametrize(
    ("key", "value", "remedy"),
    [
        ("burst", -1, "must be a whole number from 0 to 100000"),
        ("burst", 1.5, "must be a whole number"),
        ("burst", True, "must be a whole number"),
        ("per_second", 0, "from 0.01 to 10000; burst = 0 writes all of them"),
        ("per_second", "1", "must be a number of lines a second"),
        ("per_second", True, "must be a number of lines a second"),
        ("bursts", 1, "did you mean 'burst'?"),
    ],
)
def test_a_wrong_one_is_refused_by_name(key: str, value: object, remedy: str) -> None:
    _, (problem,) = parsed(log={key: value})
    assert problem.key == f"log.{key}"
    assert remedy in problem.remedy


def test_no_table() -> None:
    _, (problem,) = parsed(log=5)
    assert str(problem) == "log = 5: must be a table: write it as [log]"


def test_a_change_needs_a_restart() -> None:
    (before, _), (after, _) = parsed(), parsed(log={"burst": 5})
    assert compare(before, after).refused == ("log.burst is read at the start only: service mobility restart",)


@pytest.mark.parametrize(
    "bgp",
    [
        {"peer": {**PEER, "password": SECRET}},
        {"peer": [{**PEER, "password": [SECRET]}]},
        {"peer": [{**PEER, "password": {"is": SECRET}}]},
        {"peer": [{**PEER, "name": {"password": SECRET}}]},
        {"peer": [{**PEER, "name": [{"passwort": SECRET}]}]},
        {"peer": [[SECRET], {"password": SECRET}]},
        {"peer": [{**PEER, "pasword": SECRET}]},
        [{"peer": [{**PEER, "password": SECRET}]}],
        {"password": SECRET, "peer": [PEER]},
        {"user": {"password": SECRET}, "peer": [PEER]},
    ],
)
def test_a_password_in_the_wrong_place_is_not_shown(bgp: object) -> None:
    _, problems = parsed(bgp=bgp)
    assert problems
    assert SECRET not in "".join(f"{problem} {problem.value!r}" for problem in problems)
