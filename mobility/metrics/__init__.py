"""What Prometheus sees of the agent: every figure of it, in one place.

Counters and histograms are counted where things happen. What is true at this moment (jails, routes, sessions) is asked of
the agent at each scrape: nothing is kept of it between scrapes but what the last one showed, for when the agent has no
time to answer. A part that can not be had is left out, counted and logged: it takes nothing else along.

    catalogue    the names, units and meanings
    state        what is true at one moment, as plain values
    jails        single jails: what is counted of each, and which have series of their own
    causes       why a jail is not announced, in one word
    gather       makes a `State` of a running agent
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from threading import Thread
from typing import Any, TypeVar
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mobility import __version__
from mobility.bgp.ownership import Kind
from mobility.metrics.catalogue import CATALOGUE, COUNTER
from mobility.metrics.jails import COUNTED, Jails, JailState, Tallies
from mobility.metrics.state import MISSING, Bgp, Checks, Host, State
from mobility.model import Phase

log = logging.getLogger(__name__)

GRAVE = (Kind.LOST, Kind.CONFLICT, Kind.FROZEN, Kind.EXHAUSTED)
"""What somebody has to look into: each time a jail's ownership comes to this is counted."""
REJECTED = ("cut", "name", "owner", "phase", "size", "type", "unreadable", "version")
"""Why a file in the spool may be no event (events.spool)."""
COMMANDS = ("ifconfig", "jexec", "jls", "netstat", "route", "sysctl")
"""The host's commands that the agent runs."""
PARTS = ("agent", "bgp", "checks", "failover", "host", "jails")
OTHER = "other"

# else each counter would come with a second figure, `_created`, which Prometheus does not ask for in this format
disable_created_metrics()  # type: ignore[no-untyped-call]  # it takes and returns nothing
T = TypeVar("T")
L = TypeVar("L", bound=tuple[str, ...])


class MetricsError(Exception):
    """The metrics can not be served; the message says why and what to do."""


class _Now(Collector):
    """Asks what is true when it is asked itself, and tells it part by part."""

    def __init__(self, failed: Callable[[str], None]) -> None:
        self.ask: Callable[[], State] | None = None
        self.last = State()
        self._failed = failed
        self._asking = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        # of several scrapes at once each waits for its turn: the agent has other things to do
        with self._asking:
            if self.ask is not None:
                try:
                    self.last = self.ask()
                except TimeoutError as error:
                    log.warning("figures are old", extra={"problem": str(error)})
                    self._failed("agent")
                except Exception:  # whatever it is, what was counted can still be told
                    log.exception(MISSING, extra={"part": "agent"})
                    self._failed("agent")
            state = self.last
        yield from self._part("jails", _jails, state.jails)
        yield from self._part("bgp", _bgp, state.bgp)
        yield from self._part("failover", _failover, state.failover)
        yield from self._part("checks", _checks, state.checks)
        yield from self._part("host", _host, state.host)

    def _part(self, name: str, tell: Callable[[T], Iterable[Metric]], known: T | None) -> list[Metric]:
        """Return what is told of a part: whole, or nothing."""
        try:
            return [] if known is None else list(tell(known))
        except Exception:  # a bug in one part must not take the others along
            log.exception(MISSING, extra={"part": name})
            self._failed(name)
            return []


def _family(name: str, values: Mapping[L, float]) -> Metric:
    """Return a figure of the catalogue with its values by labels."""
    figure = CATALOGUE[f"mobility_{name}"]
    make = CounterMetricFamily if figure.kind == COUNTER else GaugeMetricFamily
    family = make(figure.stem, figure.meaning, labels=figure.labels)
    for labels, value in values.items():
        # what is no number fails here, for its own part, and not when all of it is written
        family.add_metric(labels, float(value))
    return family


def _one(name: str, value: float) -> Metric:
    return _family(name, {(): value})


def _by(name: str, values: Mapping[str, float]) -> Metric:
    """Return a figure that one label tells apart."""
    return _family(name, {(label,): value for label, value in values.items()})


def _jails(jails: Jails) -> Iterable[Metric]:
    yield from _shown(jails.shown)
    yield _by("jails", jails.stands)
    for name in ("running", "announced", "dark", "blackholed", "suppressed", "frozen", "without_series"):
        yield _one(f"jails_{name}", getattr(jails, name))
    yield _by("jails_not_announced", jails.reasons)
    yield _by("jails_ownership", jails.ownership)
    yield _one("fabric_older_claims", jails.older_claims)


def _shown(jails: Iterable[JailState]) -> Iterable[Metric]:
    """Tell of the jails that have series of their own."""
    jails = list(jails)
    for name in ("running", "announced", "ready", "wanted", "suppressed", "frozen", "anycast"):
        yield _by(f"jail_{name}", {jail.name: getattr(jail, name) for jail in jails})
    yield _by("jail_damping_penalty", {jail.name: jail.penalty for jail in jails})
    yield _family("jail_not_announced", {(jail.name, jail.reason): 1 for jail in jails if jail.reason is not None})
    yield _family("jail_ownership", {(jail.name, jail.kind): 1 for jail in jails if jail.kind is not None})
    for name in COUNTED:
        yield _by(f"jail_{name}_total", {jail.name: getattr(jail.tally, name) for jail in jails})


def _bgp(bgp: Bgp) -> Iterable[Metric]:
    yield _by("bgp_session_up", bgp.sessions)
    yield _family("bgp_session_changes_total", bgp.changes)
    yield _by("bgp_routes_held_back", bgp.held_back)
    yield _one("exabgp_restarts_total", bgp.restarts)
    yield _one("bridge_connected", bgp.connected)
    yield _by("rib_routes", bgp.rib)


def _checks(checks: Checks) -> Iterable[Metric]:
    yield _one("checks", checks.probes)
    yield _by("check_runs_total", checks.runs)
    yield _family("check_failures_total", checks.failures)


def _host(host: Host) -> Iterable[Metric]:
    yield _one("spool_depth", host.spool_depth)
    yield _one("spool_oldest_seconds", host.spool_oldest)
    yield _one("draining", host.drained)
    yield _one("last_look_timestamp_seconds", host.looked_at)


def _failover(failover: Mapping[str, Any]) -> Iterable[Metric]:
    groups, pfsync, demotion = failover["groups"], failover["pfsync"], failover["demotion"]
    yield _family("failover_stance", {(group["name"], group["stance"]): 1 for group in groups if group["stance"]})
    vhids = ((group["name"], vhid, state) for group in groups for vhid, state in group["vhids"].items())
    yield _family("carp_state", dict.fromkeys(vhids, 1))
    if demotion["total"] is not None:
        yield _by("carp_demotion", {"mobility": demotion["ours"], "others": demotion["total"] - demotion["ours"]})
    if failover["preempt"] is not None:
        yield _one("carp_preempt", failover["preempt"])
    if pfsync is not None:
        yield _one("pfsync_in_step", pfsync["syncok"] is True)


class Metrics:
    """One agent's figures, in a registry of their own.

    What is counted of single jails is counted in the agent's own thread; all else may be used from any.
    """

    def __init__(self, jails: int = 1000) -> None:
        """`jails` is how many jails may have series of their own."""
        self.registry = CollectorRegistry()
        self.tallies = Tallies(jails)
        self._now = _Now(self.failed)
        self.registry.register(self._now)
        self._server: tuple[WSGIServer, Thread] | None = None

        def counter(name: str) -> Counter:
            figure = CATALOGUE[f"mobility_{name}"]
            return Counter(figure.stem, figure.meaning, figure.labels, registry=self.registry)

        def gauge(name: str) -> Gauge:
            figure = CATALOGUE[f"mobility_{name}"]
            return Gauge(figure.name, figure.meaning, figure.labels, registry=self.registry)

        def histogram(name: str) -> Histogram:
            figure = CATALOGUE[f"mobility_{name}"]
            return Histogram(figure.name, figure.meaning, figure.labels, buckets=figure.buckets, registry=self.registry)

        self._announcements = counter("announcements_total")
        self._withdrawals = counter("withdrawals_total")
        self._flaps = counter("flaps_total")
        self._moves = counter("moves_total")
        self._ownership = counter("ownership_refusals_total")
        self._turns = counter("failover_turns_total")
        self._events = counter("events_total")
        self._event_to_announced = histogram("event_to_announced_seconds")
        self._event_to_fib = histogram("event_to_fib_seconds")
        self._event_to_withdrawn = histogram("event_to_withdrawn_seconds")
        self._command_seconds = histogram("command_seconds")
        self._command_failures = counter("command_failures_total")
        self._spool_rejected = counter("spool_rejected_total")
        self._database_errors = counter("database_errors_total")
        self._lines_suppressed = counter("log_lines_suppressed_total")
        self._lines_lost = counter("log_lines_lost_total")
        self._errors = counter("metrics_errors_total")
        gauge("build_info").labels(__version__).set(1)
        gauge("start_time_seconds").set(time.time())
        # a counter that begins with its first event hides it: rate() and increase() see changes only
        for kind in GRAVE:
            self._ownership.labels(kind)
        for phase in Phase:
            self._events.labels(phase)
        for reason in (*REJECTED, OTHER):
            self._spool_rejected.labels(reason)
        for name in COMMANDS:
            self._command_seconds.labels(name)
            self._command_failures.labels(name)
        for part in PARTS:
            self._errors.labels(part)

    # -- what happens

    def event(self, phase: str) -> None:
        """Count an event from the hooks."""
        self._events.labels(phase).inc()

    def announced_after(self, seconds: float) -> None:
        """Note how long it took from the event to the acknowledgement of the jail's last route."""
        self._event_to_announced.observe(seconds)

    def routed_after(self, seconds: float) -> None:
        """Note how long it took from the event until the host's own kernel had the jail's last route."""
        self._event_to_fib.observe(seconds)

    def withdrawn_after(self, seconds: float) -> None:
        """Note how long it took from the event to the acknowledgement that the jail's routes are withdrawn."""
        self._event_to_withdrawn.observe(seconds)

    def spool_rejected(self, reason: str) -> None:
        """Count a file in the spool that was no event."""
        self._spool_rejected.labels(reason if reason in REJECTED else OTHER).inc()

    def command(self, name: str, seconds: float, failed: bool) -> None:
        """Note how long one of the host's commands took, and whether it failed."""
        name = name if name in COMMANDS else OTHER
        self._command_seconds.labels(name).observe(seconds)
        self._command_failures.labels(name).inc(failed)

    def has_failover(self, failover: str, stances: Iterable[str]) -> None:
        """Take that there is a failover, and how its prefixes may be announced: none of that has been counted yet."""
        for stance in stances:
            self._turns.labels(failover, stance)

    def turned(self, failover: str, stance: str) -> None:
        """Count that a failover's prefixes are announced otherwise."""
        self._turns.labels(failover, stance).inc()

    def ownership(self, jail: str, kind: Kind) -> None:
        """Count a ruling by which a jail is not, or no longer, owned by this host."""
        self._ownership.labels(kind).inc()
        if kind is Kind.CONFLICT:
            self.tallies.add(jail, "conflicts")

    def moved(self, jail: str) -> None:
        """Count that the fabric shows another owner of a jail."""
        self._moves.inc()
        self.tallies.add(jail, "moves")

    def flapped(self, jail: str) -> None:
        """Count that a jail's announcement was lost through the jail itself."""
        self._flaps.inc()
        self.tallies.add(jail, "flaps")

    def announced(self, jail: str, routes: int) -> None:
        """Count routes of a jail that were announced."""
        self._announcements.inc(routes)
        self.tallies.add(jail, "announcements", routes)

    def withdrawn(self, jail: str, routes: int) -> None:
        """Count routes of a jail that were withdrawn."""
        self._withdrawals.inc(routes)
        self.tallies.add(jail, "withdrawals", routes)

    def database_error(self) -> None:
        """Count a read or write of the database that failed."""
        self._database_errors.inc()

    def lines_suppressed(self, lines: int) -> None:
        """Count log lines that were not written because there were too many like them."""
        self._lines_suppressed.inc(lines)

    def lines_lost(self, lines: int) -> None:
        """Count log lines that syslogd did not take."""
        self._lines_lost.inc(lines)

    def failed(self, part: str) -> None:
        """Count that a part of what is true could not be had."""
        self._errors.labels(part).inc()

    # -- what is true

    def ask(self, source: Callable[[], State] | None) -> None:
        """Have `source` asked, at each scrape and in the scrape's thread, what is true; None: what was told last stands."""
        self._now.ask = source

    def tell(self, state: State) -> None:
        """Take what is true, for as long as nobody is asked."""
        self._now.last = state

    # -- where it is told

    def serve(self, listen: str) -> None:
        """Answer GET /metrics at `listen`, "address:port" as config.metrics.listen has it; "" is nowhere.

        Raises MetricsError when the address can not be had.
        """
        if not listen:
            return
        address, _, port = listen.rpartition(":")
        try:
            self._server = start_http_server(int(port), address.strip("[]"), self.registry)
        except OSError as error:
            raise MetricsError(
                f"metrics can not be served at {listen}: {error.strerror}: "
                f"set metrics.listen in mobility.toml to a free address, or to an empty string"
            ) from error

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            server, thread = self._server
            server.shutdown()
            server.server_close()
            thread.join()
            self._server = None
