"""What Prometheus sees of the agent: every figure of it, in one place.

Counters and histograms are counted where things happen. What is true at this moment (jails, routes, sessions)
the agent hands over as a whole after each look: a scrape never sees half of it, and what is gone is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from threading import Thread
from typing import Any, Protocol
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mobility import __version__

EVENT_BUCKETS = (
    0.001,
    0.002,
    0.003,
    0.005,
    0.0075,
    0.01,
    0.02,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
)
"""Seconds: the aim is a few milliseconds, the promise one second (DESIGN.md, no dark jail)."""
COMMAND_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: FreeBSD's commands take milliseconds; config: agent.command_timeout gives them up at 10 s."""

MAX_REASON = 200
"""Characters of a reason that become a label."""


class MetricsError(Exception):
    """The metrics can not be served; the message says why and what to do."""


class Session(Protocol):
    """What is asked of a BGP session."""

    @property
    def state(self) -> str:
        """Return "up" for an established session."""


class _Now(Collector):
    """Tells what was handed over last when it is asked: nothing is kept per jail between scrapes."""

    def __init__(self) -> None:
        self.state: Mapping[str, Any] = {}
        self.sessions: Mapping[str, bool] = {}

    def collect(self) -> Iterable[Metric]:
        yield _family(
            "mobility_jails",
            "Jails by state.",
            ("state",),
            {(state,): count for state, count in self.state.get("stands", {}).items()},
        )
        yield _family(
            "mobility_jail_not_announced",
            "1 for each jail whose addresses should be in the fabric and are not, with the reason.",
            ("jail", "reason"),
            {(jail, reason[:MAX_REASON]): 1 for jail, reason in self.state.get("not_announced", {}).items()},
        )
        yield _family(
            "mobility_rib_routes",
            "Routes: desired, acknowledged by ExaBGP, differing between the two, held back from a peer.",
            ("state",),
            {(state,): count for state, count in self.state.get("rib", {}).items()},
        )
        yield _family(
            "mobility_bgp_session_up",
            "Whether the BGP session is established.",
            ("peer",),
            {(peer,): up for peer, up in self.sessions.items()},
        )
        yield _family(
            "mobility_bgp_routes_held_back",
            "Routes that a peer is not told, because its session does not carry them.",
            ("peer",),
            {
                (session["peer"],): sum(session.get("held_back", {}).values())
                for session in self.state.get("sessions", ())
            },
        )
        yield _family(
            "mobility_jails_ownership",
            "Jails that run here, by who owns them in the fabric.",
            ("kind",),
            {(kind,): count for kind, count in self.state.get("ownership", {}).items()},
        )
        yield _family(
            "mobility_jails_suppressed",
            "Jails that are not announced because they flap.",
            (),
            {(): self.state.get("suppressed", 0)},
        )
        checks = self.state.get("checks", {})
        yield _family(
            "mobility_checks",
            "Checks of jails that are made: each counts once for each address.",
            (),
            {(): checks.get("probes", 0)},
        )
        yield _counters(
            "mobility_check_runs",
            "Checks that were made.",
            ("kind",),
            {(kind,): count for kind, count in checks.get("runs", {}).items()},
        )
        yield _counters(
            "mobility_check_failures", "Checks that failed.", ("kind", "reason"), checks.get("failures", {})
        )
        yield _family(
            "mobility_bridge_connected",
            "Whether ExaBGP's bridge is connected.",
            (),
            {(): bool(self.state.get("bridge"))},
        )
        yield from self._failover()
        yield _family(
            "mobility_draining",
            "Whether this host, or a jail on it, is being drained.",
            (),
            {(): bool(self.state.get("drained"))},
        )

    def _failover(self) -> Iterable[Metric]:
        """Tell of failover where there is any."""
        failover = self.state.get("failover")
        if failover is None:
            return
        groups, pfsync, demotion = failover["groups"], failover["pfsync"], failover["demotion"]
        yield _family(
            "mobility_failover_stance",
            "1 for how each failover's prefixes are announced now.",
            ("failover", "stance"),
            {(group["name"], group["stance"]): 1 for group in groups if group["stance"]},
        )
        yield _family(
            "mobility_carp_state",
            "1 for the state of each vhid of a failover; an empty one is of a vhid that is not there.",
            ("vhid", "state"),
            {(vhid, state): 1 for group in groups for vhid, state in group["vhids"].items()},
        )
        total = demotion["total"]
        yield _family(
            "mobility_carp_demotion",
            "What has been added to net.inet.carp.demotion, by whom.",
            ("by",),
            {} if total is None else {("mobility",): demotion["ours"], ("others",): total - demotion["ours"]},
        )
        yield _family(
            "mobility_pfsync_in_step",
            "Whether pfsync has all states of the other node, where a failover asks for them.",
            (),
            {} if pfsync is None else {(): pfsync["syncok"] is True},
        )


def _family(name: str, text: str, labels: Sequence[str], values: Mapping[tuple[str, ...], float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for label_values, value in values.items():
        family.add_metric(label_values, value)
    return family


def _counters(
    name: str, text: str, labels: Sequence[str], values: Mapping[tuple[str, ...], float]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for label_values, value in values.items():
        family.add_metric(label_values, value)
    return family


class Metrics:
    """One agent's figures, in a registry of their own. All of it may be used from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._now = _Now()
        self.registry.register(self._now)
        self._server: tuple[WSGIServer, Thread] | None = None

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, registry=self.registry)

        self._announcements = counter("mobility_announcements", "Routes that were announced.")
        self._withdrawals = counter("mobility_withdrawals", "Routes that were withdrawn.")
        self._ownership = counter("mobility_ownership_refusals", "Jails that were not, or no longer, owned.", "kind")
        self._turns = counter("mobility_failover_turns", "Turns of failovers to another stance.", "failover", "stance")
        self._events = counter("mobility_events", "Events from the hooks.", "phase")
        self._event_to_announced = Histogram(
            "mobility_event_to_announced_seconds",
            "From the event that says a jail is up to ExaBGP's acknowledgement of its last route.",
            buckets=EVENT_BUCKETS,
            registry=self.registry,
        )
        self._command_seconds = Histogram(
            "mobility_command_seconds",
            "How long the host's commands took.",
            ("command",),
            buckets=COMMAND_BUCKETS,
            registry=self.registry,
        )
        self._command_failures = counter("mobility_command_failures", "Commands that failed.", "command")
        self._spool_rejected = counter("mobility_spool_rejected", "Files in the spool that are no events.", "reason")
        self._database_errors = counter("mobility_database_errors", "Failed reads and writes of the database.")
        self._spool_depth = gauge("mobility_spool_depth", "Events that are not dealt with yet.")
        self._spool_oldest = gauge("mobility_spool_oldest_seconds", "How long the oldest of them has waited.")
        build = Gauge("mobility_build_info", "Which version runs.", ("version",), registry=self.registry)
        build.labels(__version__).set(1)

    def event(self, phase: str) -> None:
        """Count an event from the hooks."""
        self._events.labels(phase).inc()

    def announced_after(self, seconds: float) -> None:
        """Note how long it took from the event to the acknowledgement of the jail's last route."""
        self._event_to_announced.observe(seconds)

    def spool_rejected(self, reason: str) -> None:
        """Count a file in the spool that was no event."""
        self._spool_rejected.labels(reason).inc()

    def command(self, name: str, seconds: float, failed: bool) -> None:
        """Note how long one of the host's commands took, and whether it failed."""
        self._command_seconds.labels(name).observe(seconds)
        if failed:
            self._command_failures.labels(name).inc()

    def turned(self, failover: str, stance: str) -> None:
        """Count that a failover's prefixes are announced otherwise."""
        self._turns.labels(failover, stance).inc()

    def ownership(self, kind: str) -> None:
        """Count a ruling by which a jail is not, or no longer, owned by this host."""
        self._ownership.labels(kind).inc()

    def announced(self, routes: int) -> None:
        """Count routes that were announced."""
        self._announcements.inc(routes)

    def withdrawn(self, routes: int) -> None:
        """Count routes that were withdrawn."""
        self._withdrawals.inc(routes)

    def database_error(self) -> None:
        """Count a read or write of the database that failed."""
        self._database_errors.inc()

    def refresh(self, state: Mapping[str, Any]) -> None:
        """Take over what is true now.

        `state` has "stands" (jails by state), "not_announced" (reason by jail), "rib" (routes by state),
        "bridge" (is it connected), "drained" (what is) and "spool" ("depth", and "oldest_s" in seconds).
        """
        self._now.state = state
        spool = state.get("spool", {})
        self._spool_depth.set(spool.get("depth", 0))
        self._spool_oldest.set(spool.get("oldest_s", 0))

    def sessions(self, sessions: Mapping[str, Session]) -> None:
        """Take over the state of each peer's BGP session."""
        self._now.sessions = {peer: session.state == "up" for peer, session in sessions.items()}

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
