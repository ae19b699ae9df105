"""What is allowed, said by the agent to a bridge that was started with other prefixes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.bgp.test_speaker import ALLOWED, connected, make, path, run, session

__all__ = ["path"]


@pytest.mark.parametrize(
    ("bridge_allows", "told"),
    [
        (["192.0.2.0/24"], True),
        ([], True),
        (sorted(map(str, ALLOWED)), False),
        (None, False),  # it keeps everything, as a bridge of an earlier version does
    ],
)
def test_the_bridge_learns_what_is_allowed(path: Path, bridge_allows: list[str] | None, *, told: bool) -> None:
    async def main() -> None:
        speaker = make(path)
        async with connected(speaker, path) as bridge:
            hello = {"hello": 1, "bridge": "one", "pid": 8, "exabgp": 7, "allowed": bridge_allows}
            bridge.say(hello, session(), {"outside": 8}, {"end": True})
            await speaker.until(lambda: speaker.connected)
            assert speaker.counters.outside == 8
            if told:
                assert await bridge.hear() == {"allowed": sorted(map(str, ALLOWED))}
            assert await bridge.silent()

    run(main())
