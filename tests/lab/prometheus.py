"""A real Prometheus in the lab: it scrapes the agents of the lab's hosts, by the rules of deploy/prometheus.

    with Lab(hosts=2) as lab:
        lab.start(...)
        with Prometheus(lab.client, targets(lab.hosts)) as prometheus:
            prometheus.await_alert("MobilityJailFlapping", jail="web1")

Windows of ten minutes can not be waited for in a test. So minutes become seconds there: every duration in the rules and in
the sample configuration is divided by `FASTER`, and nothing else of them is changed (`hastened`).
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from tests.lab.ground import SYSTEM_PYTHON
from tests.lab.topology import REPOSITORY, Host, Node
from tests.lab.watch import NotInTime
from tests.waiting import until

FOLDER = REPOSITORY / "deploy" / "prometheus"
RULES = (FOLDER / "rules.yml", FOLDER / "alerts.yml")
SAMPLE = FOLDER / "prometheus.yml"
#: By how much Prometheus' time runs faster here.
FASTER = 60
#: Seconds after which Prometheus takes a silent series for gone, unless told otherwise (--query.lookback-delta).
LOOKBACK = 300
PORT = 9090
METRICS_PORT = 9971
READY_SECONDS = 20.0
END_SECONDS = 10.0
#: Seconds that an alert is waited for: its window, its `for`, two scrapes and a machine that is busy.
ALERT_SECONDS = 45.0

_PARTS = re.compile(r"(\d+)(ms|[smhdwy])")
_MILLISECONDS = {
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
    "y": 31_536_000_000,
}
_DURATION = r"(?:\d+(?:ms|[smhdwy]))+"
#: Where a duration stands: a setting's value, a range, an offset. Not in a name (`:rate5m`), and not in words to people.
_PLACES = re.compile(
    rf"(^\s*(?:- )?(?:for|keep_firing_for|interval|\w+_interval|\w+_timeout): |\[|\boffset )({_DURATION})(?=$|\]|[\s,)])",
    re.MULTILINE,
)
#: Asks on stdin, answers on stdout, a line each; no proxy stands between the two.
_ASKER = """
import sys, urllib.error, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
for line in sys.stdin:
    try:
        answer = opener.open(line.strip(), timeout=30).read().decode()
    except urllib.error.HTTPError as error:
        answer = error.read().decode()
    except OSError as error:
        answer = '{"status": "error", "error": "not reached: %s"}' % type(error).__name__
    print(answer.replace("\\n", " "), flush=True)
"""


def hastened(text: str, factor: int = FASTER) -> str:
    """Return rules, or a configuration, of which every duration is divided by `factor`."""

    def shorter(match: re.Match[str]) -> str:
        whole = sum(int(figure) * _MILLISECONDS[unit] for figure, unit in _PARTS.findall(match[2]))
        return f"{match[1]}{max(1, whole // factor)}ms"

    return _PLACES.sub(shorter, text)


def targets(hosts: Sequence[Host]) -> dict[str, str]:
    """Return where each host's metrics are, of both families in turn, as `listens` has them served."""
    return {host.name: listens(host) for host in hosts}


def listens(host: Host) -> str:
    """Return the `metrics.listen` of a host whose metrics Prometheus is to reach: IPv6, IPv4, IPv6 and so on."""
    return f"[{host.address}]:{METRICS_PORT}" if host.number % 2 else f"{host.ipv4}:{METRICS_PORT}"


class Prometheus:
    """One Prometheus, run in a node; `scraped` is an address for each `instance`. A context manager.

    `rules` are files, all of deploy's by default.
    """

    def __init__(
        self, node: Node, scraped: Mapping[str, str], rules: Sequence[Path] = RULES, factor: int = FASTER
    ) -> None:
        program = shutil.which("prometheus")
        assert program, "prometheus is not installed: apt-get install prometheus (`make packages` does it)"
        self.folder = node.folder / "prometheus"
        self.folder.mkdir()
        copies = []
        for path in rules:
            copy = self.folder / path.name
            copy.write_text(hastened(path.read_text(), factor))
            copies.append(copy)
        # JSON is YAML, too
        conf = self.folder / "prometheus.json"
        conf.write_text(json.dumps(_configuration(scraped, copies, factor)))
        self.process = node.service(
            "prometheus",
            [
                program,
                f"--config.file={conf}",
                f"--storage.tsdb.path={self.folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{PORT}",
                f"--query.lookback-delta={LOOKBACK * 1000 // factor}ms",
            ],
        )
        # it lives in a network of its own: somebody there asks for us
        self._asker = node.popen([SYSTEM_PYTHON, "-I", "-c", _ASKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            self.process.await_(self._ready, "word that it is ready", READY_SECONDS)
        except BaseException:
            self.close()
            raise

    def _ready(self) -> bool:
        # the log is made when the first line has come
        log = self.process.log
        return log.exists() and "Server is ready to receive web requests" in log.read_text()

    # asking

    def ask(self, path: str, **arguments: str) -> Any:
        """Ask Prometheus' HTTP API (prometheus.io/docs/prometheus/latest/querying/api); return `data`.

        RuntimeError with Prometheus' own words where it says no.
        """
        assert self._asker.stdin is not None
        assert self._asker.stdout is not None
        self._asker.stdin.write(f"http://127.0.0.1:{PORT}/api/v1/{path}?{urlencode(arguments)}\n")
        self._asker.stdin.flush()
        line = self._asker.stdout.readline()
        answer = json.loads(line) if line else {"error": "nobody asks any more"}
        if answer.get("status") != "success":
            raise RuntimeError(f"Prometheus: {path} {arguments}: {answer.get('error')}\n{self.logs()}")
        return answer["data"]

    def query(self, expression: str) -> dict[tuple[tuple[str, str], ...], float]:
        """Return what an expression gives now: a value for each set of labels (sorted pairs, the name among them)."""
        data = self.ask("query", query=expression)
        if data["resultType"] == "scalar":
            return {(): float(data["result"][1])}
        return {_key(series["metric"]): float(series["value"][1]) for series in data["result"]}

    def query_range(
        self, expression: str, start: float, end: float, step: float
    ) -> dict[tuple[tuple[str, str], ...], list[tuple[float, float]]]:
        """Return what an expression gave from `start` to `end` (seconds since 1970), every `step` seconds."""
        data = self.ask("query_range", query=expression, start=f"{start:.3f}", end=f"{end:.3f}", step=f"{step:.3f}")
        return {
            _key(series["metric"]): [(float(when), float(value)) for when, value in series["values"]]
            for series in data["result"]
        }

    def alerts(self, name: str = "", *, state: str = "firing", **labels: str) -> list[dict[str, Any]]:
        """Return the alerts that fire (or are `pending`; "": both) of this name, if one is given, and with these labels."""
        wanted = {**labels, **({"alertname": name} if name else {})}
        found: list[dict[str, Any]] = self.ask("alerts")["alerts"]
        return [alert for alert in found if state in ("", alert["state"]) and wanted.items() <= alert["labels"].items()]

    def rules(self) -> list[dict[str, Any]]:
        """Return all rules, recording and alerting, as Prometheus has read them: with their state, and what went wrong."""
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]

    # waiting

    def await_(self, check: Callable[[], bool], what: str, seconds: float = ALERT_SECONDS) -> None:
        """Wait until `check` holds; NotInTime with Prometheus' log where it never does."""
        try:
            until(check, what, seconds)
        except AssertionError as error:
            raise NotInTime(f"Prometheus: no {error} within {seconds:g} s\n{self.logs()}") from error

    def await_query(self, expression: str, seconds: float = ALERT_SECONDS) -> None:
        """Wait until an expression gives something: `mobility_jail_running{jail="web1"} == 1`."""
        self.await_(lambda: bool(self.query(expression)), expression, seconds)

    def await_alert(self, name: str, seconds: float = ALERT_SECONDS, **labels: str) -> dict[str, Any]:
        """Wait until an alert fires; return it, with `labels` and `annotations`."""
        self.await_(lambda: bool(self.alerts(name, **labels)), f"alert {name} {labels}", seconds)
        return self.alerts(name, **labels)[0]

    def await_clear(self, name: str, seconds: float = ALERT_SECONDS, **labels: str) -> None:
        """Wait until an alert neither fires nor is about to."""
        self.await_(lambda: not self.alerts(name, state="", **labels), f"end of alert {name} {labels}", seconds)

    def logs(self) -> str:
        """Return the end of its log, what it scrapes and how that went, and which alerts there are."""
        said = [self.process.tail()]
        if self.process.running and self._asker.poll() is None:
            try:
                said += [f"--- {each}: {json.dumps(self._raw(each))}" for each in ("targets?state=active", "alerts")]
            except (OSError, ValueError) as error:
                said.append(f"--- it does not answer: {error}")
        return "\n".join(said)

    def _raw(self, path: str) -> Any:
        """Ask without ever complaining: for a report of what went wrong."""
        assert self._asker.stdin is not None
        assert self._asker.stdout is not None
        self._asker.stdin.write(f"http://127.0.0.1:{PORT}/api/v1/{path}\n")
        self._asker.stdin.flush()
        return json.loads(self._asker.stdout.readline())

    def close(self) -> None:
        """End it."""
        assert self._asker.stdin is not None
        assert self._asker.stdout is not None
        self._asker.stdin.close()
        try:
            self._asker.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._asker.kill()
            self._asker.wait()
        self._asker.stdout.close()
        self.process.end(signal.SIGTERM, END_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            error.add_note(self.logs())
        self.close()


def _key(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


def _configuration(scraped: Mapping[str, str], rules: Sequence[Path], factor: int) -> dict[str, Any]:
    """The sample's intervals, hastened; each host's name is its `instance`, as the sample has it."""
    intervals = dict(
        re.findall(r"^  (\w+_(?:interval|timeout)): (\S+)", hastened(SAMPLE.read_text(), factor), re.MULTILINE)
    )
    # on a machine that is busy an answer may take as long as it is worth anything
    intervals["scrape_timeout"] = intervals["scrape_interval"]
    return {
        "global": intervals,
        "rule_files": [str(path) for path in rules],
        "scrape_configs": [
            {
                "job_name": "mobility",
                "static_configs": [
                    {"targets": [address], "labels": {"instance": name}} for name, address in scraped.items()
                ],
            }
        ],
    }
