"""Paths inside a jail's tree, where / is the jail's path: for links, too."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

MAXSYMLINKS = 32  # sys/param.h


def resolve(root: str, path: str) -> Path | None:
    """Where *path* of a jail whose path is *root* really lies, seen from outside; None where it leads nowhere.

    As namei(9) goes below a jail's root: an absolute link begins at the root again, and no .. leads out of it.
    """
    base, left, links = Path(root), list(PurePosixPath(path).parts), 0
    here = base
    while left:
        part = left.pop(0)
        if part in ("/", "."):
            continue
        if part == "..":
            here = here if here == base else here.parent
            continue
        step = here / part
        try:
            target = PurePosixPath(os.readlink(step)) if step.is_symlink() else None  # noqa: PTH115 - not resolved
        except OSError:
            return None
        if target is None:
            here = step
            continue
        links += 1
        if links > MAXSYMLINKS:
            return None
        here = base if target.is_absolute() else here
        left = [*target.parts, *left]
    return here if here.exists() else None
