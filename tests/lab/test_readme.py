"""README.md, done: what it shows is what happens, and what its text names can be run. After a change of what is printed:

python -m tests.lab.test_readme      # writes what is printed now into README.md; read the difference
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests.lab import story
from tests.lab.ground import linux_only
from tests.readme import PATH, Told, agree, written
from tests.readme_commands import INLINE

LABS: dict[str, tuple[Callable[[str], AbstractContextManager[story.Story]], tuple[str, ...]]] = {
    "main": (story.main, ("",)),
    "managers": (story.managers, story.MANAGERS),
    "pair": (story.gateways, ("pair",)),
}
"""What builds a lab, and the names of the blocks that are told on it."""


def told(lab: str, page: str, *, inline: bool = True) -> list[Told]:
    """Do everything that README.md shows on one lab, and what its text names there; return what was printed."""
    make, names = LABS[lab]
    found = []
    with make(page) as teller:
        for name in names:
            found += teller.tell(name)
            done = {(step.where, step.line) for each in found for step, _ in each}
            for command, run in INLINE[name].items() if inline else ():
                line = (run.where, run.line or command)
                if line not in done:
                    teller.inline(command, run)
                done.add(line)
    return found


@pytest.mark.parametrize("lab", LABS)
def test_what_it_shows_is_what_happens(lab: str) -> None:
    if lab != "main":
        linux_only("the managers' programs, and CARP, are played beside the lab's own kernel")
    for each in told(lab, PATH.read_text()):
        for step, printed in each:
            assert agree(step.shown, printed), f"{step.prompt}\n" + "\n".join(printed)


def main() -> None:
    """Write what is printed now: of the labs that are named, or of all."""
    from tests.interop import test_readme as routers  # they live in Linux' namespaces

    page = PATH.read_text()
    names = sys.argv[1:] or [*LABS, *routers.KINDS]
    found: list[Told] = []
    for name in names:
        found += told(name, page, inline=False) if name in LABS else routers.told(name, page)
    PATH.write_text(written(PATH.read_text(), found))


if __name__ == "__main__":
    main()
