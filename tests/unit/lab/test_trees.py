"""Paths inside a jail's tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.kernel.trees import resolve


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/sbin/ifconfig", "release/sbin/ifconfig"),
        ("/../../sbin/./ifconfig", "release/sbin/ifconfig"),
        ("/usr/bin/netstat", "release/sbin/ifconfig"),
        ("/up/release", "release"),
        ("/sbin/nosuch", None),
        ("/loop/x", None),
    ],
)
def test_links_lead_nowhere_out_of_the_tree(tmp_path: Path, path: str, found: str | None) -> None:
    for folder in ("release/sbin", "usr/bin"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "release/sbin/ifconfig").touch()
    for link, target in (
        ("sbin", "/release/sbin"),
        ("usr/bin/netstat", "../../sbin/ifconfig"),
        ("up", "../.."),
        ("loop", "/loop"),
    ):
        (tmp_path / link).symlink_to(target)
    assert resolve(str(tmp_path), path) == (tmp_path / found if found else None)
