"""What a run measured: figures with units and notes, a table for people, JSON for machines."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value."""

    name: str
    value: float
    unit: str
    note: str = ""


@dataclass(slots=True)
class Figures:
    """All of them, in the order measured."""

    figures: list[Figure] = field(default_factory=list)

    def add(self, name: str, value: float, unit: str, note: str = "") -> None:
        """Keep a figure and print it."""
        figure = Figure(name, round(value, 3), unit, note)
        self.figures.append(figure)
        print(f"{name:32} {figure.value:>12} {unit:10} {note}", flush=True)

    def value(self, name: str) -> float:
        """Return a figure measured before."""
        return next(figure.value for figure in self.figures if figure.name == name)

    def write(self, path: Path) -> None:
        """Write {"machine": ..., "figures": [...]}."""
        machine = {
            "cpus": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "machine": platform.machine(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": machine, "figures": [asdict(f) for f in self.figures]}, indent=2) + "\n")


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` (0 to 1) of the values lie: the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def milliseconds(seconds: Sequence[float]) -> float:
    """Return the median in milliseconds."""
    return 1000 * statistics.median(seconds)
