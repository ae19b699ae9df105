"""Draws deploy/grafana/pictures: `.venv/bin/python -m tests.lab.pictures`, as root; needs matplotlib (the extra `pictures`).

They are no screenshots of Grafana. Two gateways of the lab live through a story of not quite two minutes, a real Prometheus
scrapes them, and each panel of the dashboards in deploy/grafana/boards is drawn here from what that Prometheus answers to
the panel's own query: its place, title, words, colours and thresholds are those of the JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import json
import math
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from deploy.grafana.dashboards import FOLDER
from tests.lab.grafana import NAMES, Grafana, Question
from tests.lab.pair import HOLD_TIME, LANS, QUICK, VHIDS, Pair
from tests.lab.prometheus import Prometheus, listens, targets
from tests.lab.topology import REPOSITORY

TARGET = REPOSITORY / "deploy" / "grafana" / "pictures"
#: Seconds that the story tells of, and how many pixels a panel's unit of height and width has.
STORY = 100.0
COLUMN, LINE = 50, 30
#: By how much Prometheus' time runs faster: a scrape every 750 ms.
FASTER = 20
DOTS = 100
COLOURS = {"green": "#56a64b", "yellow": "#e0b400", "red": "#e02f44", "blue": "#3274d9", "orange": "#ff780a"}
PALETTE = ("#3274d9", "#56a64b", "#e0b400", "#e02f44", "#a352cc", "#ff780a", "#37872d", "#8ab8ff", "#fa6400", "#808080")
#: How wide a table's columns are, beside the others.
WIDE = {"why not": 5.0, "host": 1.0, "jail": 1.0}
PAPER, PAGE, INK, FAINT = "#ffffff", "#f0f1f4", "#24292e", "#8a9099"
#: a has those of even number at first, b the others.
JAILS = ("web2", "web1", "db1", "db2", "git1", "mail1")

Json = dict[str, Any]
Series = dict[tuple[tuple[str, str], ...], list[tuple[float, float]]]


# -- the story

#: What [agent] needs for a lab that does not wait: seconds.
AGENT = {"look_every": 1.0, "reject_for": 0.2, "settle_for": 3.0, "drain_for": 0.2}
#: So that five flaps are enough, and the penalty is seen to fall.
DAMPING = {"suppress": 3000, "reuse": 1500, "half_life": 15, "maximum": 45}
#: CARP counts so many seconds in one.
PACE = 4.0


@contextlib.contextmanager
def gateways() -> Iterator[tuple[Pair, Prometheus]]:
    """Build a pair of gateways with a failover, a the MASTER, both scraped."""
    with Pair(pace=PACE) as pair:
        pair.carp()
        pair.pfsync()
        for host in pair.hosts:
            paths: Json = tomllib.loads(host.config.read_text())["paths"]
            host.configure(
                peers=[host.peers[0] | {"hold_time": HOLD_TIME}],
                paths=paths | {"devd": str(pair.kernel.devd(host.name))},
                agent=AGENT,
                damping=DAMPING,
                metrics={"listen": listens(host)},
                **{"failover.lan": {"vhids": list(VHIDS), "services": list(LANS)} | QUICK},
            )
            for number, jail in enumerate(JAILS):
                host.define_jail(jail, [f"198.51.100.{7 + number}/32", f"2001:db8:7::{7 + number:x}/128"])
            host.start_agent()
            host.start_exabgp()
        with Prometheus(pair.client, targets(pair.hosts), factor=FASTER) as prometheus:
            for host in pair.hosts:
                pair.await_session(host)
            pair.await_state(pair.hosts[0], "MASTER")
            prometheus.await_query(f"sum(up) == {len(pair.hosts)}")
            yield pair, prometheus


def story(pair: Pair) -> Iterator[float]:
    """Let things happen; yield when the next is to, in seconds from the start."""
    a, b = pair.hosts
    for number, jail in enumerate(JAILS):
        yield 2 + number
        (b if number % 2 else a).start_jail(jail)
    yield 12  # a move
    b.stop_jail("web1")
    a.start_jail("web1")
    yield 20  # the master is drained: the other takes over
    with contextlib.suppress(RuntimeError):
        a.mobility("drain")
    yield 32
    a.mobility("undrain")
    yield 37  # an ordinary restart
    a.stop_jail("web2")
    a.start_jail("web2")
    yield 42  # its session breaks
    a.stop_exabgp()
    yield 46
    a.start_exabgp()
    yield 56  # its agent is away, its routes stand
    a.stop_agent()
    yield 62
    a.start_agent()
    flapping = "db1"
    for turn in range(5):  # a jail dies again and again: it is kept back
        yield 72 + 3 * turn
        a.run(["jail", "-R", flapping], check=False)
        yield 73.5 + 3 * turn
        a.start_jail(flapping)
    yield 87  # and one's service is dead
    file = b.jails_d / "mail1.toml"
    file.write_text(file.read_text() + '[[check]]\nkind = "tcp"\nport = 9\ninterval = 1.0\nfall = 1\n')
    yield STORY


def play(pair: Pair) -> tuple[float, float]:
    """Have the story happen; return when it began and ended."""
    start = time.time()
    for seconds in story(pair):
        time.sleep(max(0.0, start + seconds - time.time()))
        print(f"pictures: {seconds:5.1f} s of {STORY:g}", file=sys.stderr)
    return start, time.time()


# -- drawing


def colour(name: str) -> str:
    """Return a colour of the JSON as matplotlib has it."""
    return COLOURS.get(name, name)


def stepped(look: Json, value: float) -> str:
    """Return the colour of a value, by its thresholds."""
    found = "grey"
    for step in look.get("thresholds", {}).get("steps", ()):
        if step["value"] is None or value >= step["value"]:
            found = step["color"]
    return colour(found)


def worded(look: Json, value: float | str) -> tuple[str, str]:
    """Return what a value is called, and the colour that it has by that name; "" is none of its own."""
    key = f"{value:g}" if isinstance(value, float) else value
    for mapping in look.get("mappings", ()):
        if key in mapping["options"]:
            result = mapping["options"][key]
            return result["text"], colour(result.get("color", ""))
    if isinstance(value, str):
        return value, ""
    return scaled(value, look.get("unit", "short"), look.get("decimals")), ""


def scaled(value: float, unit: str, decimals: int | None = None) -> str:
    """Return a value in its unit."""
    if unit == "s" and 0 < abs(value) < 1:
        return f"{value * 1000:.3g} ms"
    text = f"{value:.{decimals}f}" if decimals is not None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{text} s" if unit == "s" else text


def legend(pattern: str, labels: dict[str, str]) -> str:
    """Return the name of a series."""
    if pattern == "__auto":
        return " ".join(value for key, value in labels.items() if key not in ("__name__", "job"))
    for key, value in labels.items():
        pattern = pattern.replace("{{" + key + "}}", value)
    return pattern


class Board:
    """One dashboard, drawn on one page."""

    def __init__(self, name: str, grafana: Grafana, chosen: dict[str, str], start: float, end: float) -> None:
        from matplotlib.figure import Figure

        self.whole: Json = json.loads((FOLDER / f"{name}.json").read_text())
        self._grafana, self._chosen, self._start, self._end = grafana, chosen, start, end
        bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in self.whole["panels"])
        self._size = (24 * COLUMN, (bottom + 1.4) * LINE)
        self._figure = Figure(figsize=(self._size[0] / DOTS, self._size[1] / DOTS), dpi=DOTS, facecolor=PAGE)
        said = "  ".join(f"{variable['label']}: {chosen[variable['name']]}" for variable in self._shown())
        self._figure.text(
            0.01, 1 - 22 / self._size[1], f"{self.whole['title']}    {said}", size=11, weight="bold", color=INK
        )
        for panel in self.whole["panels"]:
            self._panel(panel)

    def _shown(self) -> list[Json]:
        return [variable for variable in self.whole["templating"]["list"] if variable["type"] == "query"]

    def _axes(self, place: Json, *, left: float, right: float, top: float, bottom: float) -> Any:
        """Return axes in a panel's place, with these margins in pixels."""
        width, height = self._size
        x, y = place["x"] * COLUMN, (place["y"] + 1.2) * LINE
        box = (
            x + left,
            y + place["h"] * LINE - bottom,
            place["w"] * COLUMN - left - right,
            place["h"] * LINE - top - bottom,
        )
        return self._figure.add_axes((box[0] / width, 1 - box[1] / height, box[2] / width, box[3] / height))

    def _panel(self, panel: Json) -> None:
        place = panel["gridPos"]
        title = panel["title"]
        for name, value in self._chosen.items():
            title = title.replace(f"${name}", value)
        if panel["type"] == "row":
            axes = self._axes(place, left=8, right=8, top=0, bottom=0)
            axes.axis("off")
            axes.text(0, 0.3, title, size=9.5, weight="bold", color=INK)
            return
        paper = self._axes(place, left=3, right=3, top=3, bottom=3)
        paper.set(facecolor=PAPER, xticks=[], yticks=[])
        for spine in paper.spines.values():
            spine.set_color("#d8dbe0")
        kind = panel["type"]
        if kind != "stat":
            height = place["h"] * LINE
            paper.text(
                6 / (place["w"] * COLUMN), 1 - 13 / height, title, size=7.6, weight="bold", color=INK, va="center"
            )
        draw: Callable[[Json, str], None] = {
            "stat": self._stat,
            "timeseries": self._lines,
            "state-timeline": self._states,
            "heatmap": self._heat,
            "bargauge": self._bars,
            "table": self._table,
        }[kind]
        draw(panel, title)

    def _ask(self, target: Json, step: float = 0.0) -> Series:
        return self._grafana.series(Question("", target["expr"]), self._chosen, step)

    def _named(self, panel: Json) -> list[tuple[str, list[tuple[float, float]]]]:
        found = []
        for target in panel["targets"]:
            for labels, points in sorted(self._ask(target).items()):
                found.append((legend(target["legendFormat"], dict(labels)), points))
        return found

    def _pieces(self, points: list[tuple[float, float]]) -> list[list[tuple[float, float]]]:
        """What was answered, cut where nothing was for a while: Grafana does not span that either."""
        found: list[list[tuple[float, float]]] = []
        for at, value in points:
            if not found or at - found[-1][-1][0] > 3 * self._grafana.interval:
                found.append([])
            found[-1].append((at, value))
        return found

    def _last(self, target: Json) -> dict[tuple[tuple[str, str], ...], float]:
        """What is so at the end of the time."""
        late = self._end - 2
        return {labels: points[-1][1] for labels, points in self._ask(target).items() if points[-1][0] >= late}

    def _clock(self, axes: Any) -> None:
        axes.set_xlim(0, self._end - self._start)
        axes.tick_params(labelsize=6, colors=FAINT, labelcolor=INK, length=2, pad=2)
        for name, spine in axes.spines.items():
            spine.set_visible(name in ("left", "bottom"))
            spine.set_color("#c4c8ce")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} s")

    def _marks(self, axes: Any) -> None:
        for mark in self.whole["annotations"]["list"]:
            if "expr" not in mark:
                continue
            for points in self._ask(mark).values():
                begun = [at for (at, _), (before, _) in zip(points[1:], points, strict=False) if at - before > 1]
                for at in [points[0][0], *begun]:
                    axes.axvline(at - self._start, color=colour(mark["iconColor"]), lw=0.7, ls=(0, (3, 3)), alpha=0.6)

    def _stat(self, panel: Json, title: str) -> None:
        look = panel["fieldConfig"]["defaults"]
        (target,) = panel["targets"]
        last = self._last(target)
        place = panel["gridPos"]
        axes = self._axes(place, left=3, right=3, top=3, bottom=3)
        axes.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1))
        for spine in axes.spines.values():
            spine.set_visible(False)
        if last:
            (labels, value), *_ = last.items()
            text, own = worded(look, value)
            text = legend(target["legendFormat"], dict(labels)) if panel["options"]["textMode"] == "name" else text
            fill = own or stepped(look, value)
        else:
            text, fill = "no data", FAINT
        axes.set_facecolor(fill)
        axes.text(
            0.5,
            0.86,
            title,
            size=6.4 if place["w"] < 4 else 7.4,
            weight="bold",
            color="white",
            ha="center",
            va="center",
        )
        axes.text(0.5, 0.52, text, size=17, weight="bold", color="white", ha="center", va="center")
        if panel["options"]["graphMode"] == "area":
            for points in self._ask(target).values():
                highest = max((value for _, value in points), default=0)
                if highest > 0:
                    x = [(at - self._start) / (self._end - self._start) for at, _ in points]
                    axes.fill_between(
                        x, [0.26 * value / highest for _, value in points], step="post", color="white", alpha=0.35
                    )

    def _lines(self, panel: Json, title: str) -> None:
        place, look = panel["gridPos"], panel["fieldConfig"]["defaults"]
        series = self._named(panel)
        rows = -(-len(series) // 3)
        axes = self._axes(place, left=46, right=14, top=28, bottom=24 + 11 * rows)
        self._clock(axes)
        highest = 0.0
        for number, (name, points) in enumerate(series):
            ink = PALETTE[number % len(PALETTE)]
            x, y = [], []
            for each in self._pieces(points):
                x += [*(at - self._start for at, _ in each), each[-1][0] - self._start]
                y += [*(value for _, value in each), math.nan]
            highest = max(highest, *(value for _, value in points))
            if look["custom"]["drawStyle"] == "bars":
                axes.fill_between(x, y, step="post", color=ink, alpha=0.6, lw=0, label=name)
            else:
                axes.plot(x, y, color=ink, lw=1.1, drawstyle="steps-post", label=name, marker=".", ms=1.5)
        axes.set_ylim(0, highest * 1.1 or 1)
        axes.yaxis.set_major_formatter(lambda value, _: scaled(value, look["unit"]))
        axes.locator_params(axis="y", nbins=5)
        axes.grid(axis="y", color="#eceef1", lw=0.6)
        self._marks(axes)
        below = -22 / (place["h"] * LINE - 52 - 11 * rows)
        axes.legend(
            loc="upper left", bbox_to_anchor=(-0.02, below), ncols=3, fontsize=6, frameon=False, borderpad=0, labelcolor=INK,
            handlelength=1, columnspacing=1.2, labelspacing=0.25, borderaxespad=0,
        )  # fmt: skip

    def _states(self, panel: Json, title: str) -> None:
        from matplotlib.patches import Patch

        place, look = panel["gridPos"], panel["fieldConfig"]["defaults"]
        series = self._named(panel)
        axes = self._axes(place, left=86, right=14, top=28, bottom=36)
        self._clock(axes)
        step, used = self._grafana.interval * 1.5, {}
        for number, (_, points) in enumerate(series):
            runs = (itertools.groupby(each, key=lambda point: point[1]) for each in self._pieces(points))
            for value, run in itertools.chain.from_iterable(runs):
                held = list(run)
                text, ink = worded(look, value)
                used[text] = ink
                begin = held[0][0] - self._start
                axes.barh(number, held[-1][0] - held[0][0] + step, left=begin, height=0.6, color=ink, alpha=0.85, lw=0)
        axes.set_yticks(range(len(series)), [name for name, _ in series])
        axes.set_ylim(len(series) - 0.4, -0.6)
        self._marks(axes)
        patches = [Patch(color=ink, label=text) for text, ink in used.items()]
        below = -22 / (place["h"] * LINE - 64)
        axes.legend(
            handles=patches, loc="upper left", bbox_to_anchor=(0, below), ncols=4, fontsize=6, frameon=False, borderpad=0,
            handlelength=1, borderaxespad=0, labelcolor=INK,
        )  # fmt: skip

    def _heat(self, panel: Json, title: str) -> None:
        step = (self._end - self._start) / 45
        (target,) = panel["targets"]
        # Grafana draws cells as wide as a step, which is far wider than a scrape
        target = target | {"expr": target["expr"].replace("$__rate_interval", f"{round(step * 1000 * FASTER)}ms")}
        found = {dict(labels)["le"]: dict(points) for labels, points in self._ask(target, step).items()}
        bounds = sorted(found, key=float)
        times = sorted({at for points in found.values() for at in points})
        rows, before = [], dict.fromkeys(times, 0.0)
        for bound in bounds:
            rows.append([max(0.0, found[bound].get(at, 0.0) - before[at]) for at in times])
            before = {at: found[bound].get(at, before[at]) for at in times}
        kept = [number for number, values in enumerate(rows) if max(values, default=0) > 0.05] or [0]
        low, high = max(0, kept[0] - 1), min(len(rows), kept[-1] + 2)
        axes = self._axes(panel["gridPos"], left=52, right=14, top=28, bottom=24)
        self._clock(axes)
        if times:
            x = [at - self._start - step / 2 for at in times]
            axes.pcolormesh(x, range(low, high), rows[low:high], cmap="Oranges", shading="nearest", rasterized=True)
        axes.set_yticks(
            range(low, high), [scaled(float(bound), "s") if bound != "+Inf" else "more" for bound in bounds[low:high]]
        )

    def _bars(self, panel: Json, title: str) -> None:
        look = panel["fieldConfig"]["defaults"]
        (target,) = panel["targets"]
        last = {
            legend(target["legendFormat"], dict(labels)): round(value) for labels, value in self._last(target).items()
        }
        axes = self._axes(panel["gridPos"], left=52, right=34, top=30, bottom=10)
        axes.axis("off")
        most = max(last.values(), default=0) or 1
        for number, (name, value) in enumerate(sorted(last.items(), key=lambda each: -each[1])[:8]):
            axes.barh(number, most, height=0.62, color="#eceef1")
            axes.barh(number, value, height=0.62, color=stepped(look, value))
            axes.text(-0.03 * most, number, name, size=6.5, ha="right", va="center", color=INK)
            axes.text(1.04 * most, number, f"{value:g}", size=7, va="center", color=INK, weight="bold")
        axes.set(xlim=(0, most), ylim=(max(len(last), 6) - 0.4, -0.6))

    def _rows(self, panel: Json, columns: dict[str, str]) -> list[dict[str, Any]]:
        """The rows of a table, as Grafana's transformation `merge` makes them: those that agree in all labels are one."""
        rows: list[dict[str, Any]] = []
        for number, target in enumerate(panel["targets"]):
            for labels, value in sorted(self._last(target).items()):
                own = {key: text for key, text in labels if key in columns}
                shared = [
                    row for row in rows if all(row[key] == own[key] for key in row.keys() & own.keys() & columns.keys())
                ]
                if number == 0 or not shared:
                    rows.append({})
                    shared = rows[-1:]
                shared[0].update(own)
                shared[0][f"Value #{chr(ord('A') + number)}"] = value
        return rows

    def _table(self, panel: Json, title: str) -> None:
        columns: dict[str, str] = panel["transformations"][-1]["options"]["renameByName"]
        looks = {
            each["matcher"]["options"]: {one["id"]: one["value"] for one in each["properties"]}
            for each in panel["fieldConfig"]["overrides"]
        }
        place = panel["gridPos"]
        axes = self._axes(place, left=12, right=8, top=26, bottom=6)
        axes.axis("off")
        lines = max((place["h"] * LINE - 32) // 17, 1)
        axes.set(xlim=(0, 1), ylim=(lines, 0))
        wide = [WIDE.get(heading, 1.0) for heading in columns.values()]
        edges = [sum(wide[:number]) / sum(wide) for number in range(len(wide) + 1)]
        for edge, heading in zip(edges, columns.values(), strict=False):
            axes.text(edge, 0.5, heading, size=6.8, weight="bold", color=FAINT, va="center")
        rows = self._rows(panel, columns)
        for number, row in enumerate(rows[: lines - 1], 1):
            for (edge, right), (key, heading) in zip(itertools.pairwise(edges), columns.items(), strict=True):
                look, value = looks.get(heading, {}), row.get(key, "")
                text, fill = worded(look, value)
                if not fill and "thresholds" in look and isinstance(value, float):
                    fill = stepped(look, value)
                if fill:
                    axes.fill_between([edge - 0.004, right - 0.012], number + 0.08, number + 0.92, color=fill, lw=0)
                room = int((right - edge) * place["w"] * COLUMN / 4.6)
                ink = "white" if fill else COLOURS["blue"] if "links" in look else INK
                shown = text if len(text) <= room else f"{text[: room - 1]}…"
                axes.text(edge, number + 0.5, shown, size=6.8, color=ink, va="center")
        if not rows:
            axes.text(0.5, lines / 2, "none", size=8, color=FAINT, ha="center", va="center")

    def write(self, path: Path) -> None:
        """Write the page as a PNG of few colours, so that it stays small."""
        from PIL import Image

        drawn = io.BytesIO()
        self._figure.savefig(drawn, format="png", facecolor=PAGE)
        drawn.seek(0)
        Image.open(drawn).convert("RGB").quantize(96, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> int:
    """Build the lab, let the story happen, draw."""
    try:
        importlib.import_module("matplotlib")
    except ImportError:
        print("pictures: matplotlib is not here: .venv/bin/pip install -e '.[pictures]'", file=sys.stderr)
        return 1
    TARGET.mkdir(exist_ok=True)
    with gateways() as (pair, prometheus):
        start, end = play(pair)
        grafana = Grafana(prometheus, start, end, faster=FASTER, factor=FASTER)
        for name in NAMES:
            chosen = {"job": "mobility", "instance": "a", "jail": "db1"}
            path = TARGET / f"{name}.png"
            Board(name, grafana, chosen, start, end).write(path)
            print(path.relative_to(REPOSITORY), path.stat().st_size, "bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
