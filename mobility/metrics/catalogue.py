"""Every figure that Prometheus may see: its name, what it counts, in what, and by what it is told apart.

README.md's table is made of this (`python -m tests.metrics_table`), and so is what is served: there is no other place
where a figure gets its name. Names and units are as Prometheus asks for them (prometheus.io/docs/practices/naming): base
units, the unit at the end, `_total` for what only grows.
"""

from __future__ import annotations

from dataclasses import dataclass

GAUGE, COUNTER, HISTOGRAM = "gauge", "counter", "histogram"
YES = "0 or 1"
SECONDS = "seconds"

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


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure. `buckets` are a histogram's upper bounds."""

    name: str
    kind: str
    unit: str
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = ()

    @property
    def stem(self) -> str:
        """The name without what prometheus-client adds to it by itself."""
        return self.name.removesuffix("_total") if self.kind == COUNTER else self.name


def _gauge(name: str, unit: str, meaning: str, *labels: str) -> Figure:
    return Figure(f"mobility_{name}", GAUGE, unit, labels, meaning)


def _counter(name: str, unit: str, meaning: str, *labels: str) -> Figure:
    return Figure(f"mobility_{name}", COUNTER, unit, labels, meaning)


def _histogram(name: str, buckets: tuple[float, ...], meaning: str, *labels: str) -> Figure:
    return Figure(f"mobility_{name}", HISTOGRAM, SECONDS, labels, meaning, buckets)


JAIL = (
    _gauge("jail_running", YES, "Whether the jail runs here.", "jail"),
    _gauge(
        "jail_announced",
        YES,
        "Whether ExaBGP has told a peer of each of its routes; of one that does not run, of any.",
        "jail",
    ),
    _gauge("jail_ready", YES, "Whether all its checks pass.", "jail"),
    _gauge(
        "jail_wanted",
        YES,
        "Whether it should be announced: it runs, has addresses, is neither drained nor handed over, neither starts nor stops, "
        "and its failover announces it.",
        "jail",
    ),
    _gauge("jail_not_announced", "1", "Each jail that runs and is not announced, by why.", "jail", "reason"),
    _gauge("jail_damping_penalty", "figure of merit", "What its flaps have run up, as it is now (RFC 2439).", "jail"),
    _gauge("jail_suppressed", YES, "Whether damping keeps it from being announced.", "jail"),
    _gauge("jail_frozen", YES, "Whether it has moved too often and is claimed no more.", "jail"),
    _gauge("jail_ownership", "1", "Who owns a jail that runs here, as the fabric shows it.", "jail", "kind"),
    _gauge("jail_anycast", YES, "Whether several hosts may announce it at once.", "jail"),
    _counter("jail_announcements_total", "routes", "Its routes that were announced.", "jail"),
    _counter("jail_withdrawals_total", "routes", "Its routes that were withdrawn.", "jail"),
    _counter("jail_flaps_total", "flaps", "Losses of its announcement that damping counts.", "jail"),
    _counter("jail_moves_total", "moves", "Changes of its owner, as seen from this host.", "jail"),
    _counter("jail_conflicts_total", "conflicts", "Times that another jail's claim was found on its address.", "jail"),
)
"""Told of at most `metrics.jails` jails; which, says mobility.metrics.jails."""

JAILS = (
    _gauge("jails", "jails", "Jails by where they should stand.", "state"),
    _gauge("jails_running", "jails", "Jails that run here."),
    _gauge("jails_announced", "jails", "Jails that run here and are announced."),
    _gauge("jails_dark", "jails", "Jails that should be announced and are not."),
    _gauge("jails_blackholed", "jails", "Jails that do not run here and are announced."),
    _gauge("jails_not_announced", "jails", "Jails that run and are not announced, by why.", "reason"),
    _gauge("jails_suppressed", "jails", "Jails that damping keeps from being announced."),
    _gauge("jails_frozen", "jails", "Jails that have moved too often and are claimed no more."),
    _gauge("jails_ownership", "jails", "Jails that run here, by who owns them in the fabric.", "kind"),
    _gauge("jails_without_series", "jails", "Jails for which `metrics.jails` leaves no series of their own."),
    _gauge("fabric_older_claims", "jails", "Jails of which a peer goes on showing an older claim than this host's."),
)

BGP = (
    _gauge("bgp_session_up", YES, "Whether the BGP session is established.", "peer"),
    _counter("bgp_session_changes_total", "changes", "Changes of a session to up or down.", "peer", "state"),
    _gauge("bgp_routes_held_back", "routes", "Routes that a peer is not told, because it does not take them.", "peer"),
    _counter("exabgp_restarts_total", "starts", "New ExaBGPs since the first that this agent has met."),
    _gauge("bridge_connected", YES, "Whether ExaBGP's bridge is connected, and has told all it knows."),
    _gauge(
        "rib_routes",
        "routes",
        "Routes: desired; over all peers, acknowledged by ExaBGP, differing from what is desired, held back, received; "
        "over_limit: those for which bgp.max_announcements leaves no room.",
        "state",
    ),
)

FAILOVER = (
    _gauge("failover_stance", "1", "How each failover's prefixes are announced now.", "failover", "stance"),
    _gauge(
        "carp_state",
        "1",
        "The state of each vhid of a failover; empty where there is no such vhid.",
        "failover",
        "vhid",
        "state",
    ),
    _gauge("carp_demotion", "demotion", "What has been added to net.inet.carp.demotion, by whom.", "by"),
    _gauge("carp_preempt", YES, "net.inet.carp.preempt."),
    _gauge("pfsync_in_step", YES, "Whether pfsync has all states of the other node, where a failover asks for them."),
)
"""Told only where mobility.toml has a [failover.NAME]."""

HOST = (
    _gauge("spool_depth", "events", "Events that are not dealt with yet."),
    _gauge("spool_oldest_seconds", SECONDS, "How long the oldest of them has waited."),
    _gauge("checks", "checks", "Checks of jails that are made: each counts once for each address."),
    _counter("check_runs_total", "checks", "Checks that were made.", "kind"),
    _counter("check_failures_total", "checks", "Checks that failed.", "kind", "reason"),
    _gauge("draining", YES, "Whether this host, or a jail on it, is being drained."),
    _gauge(
        "last_look_timestamp_seconds", "seconds since 1970", "When the host was looked at last; 0: not yet, or in vain."
    ),
)

COUNTED = (
    _counter("announcements_total", "routes", "Routes of jails that were announced."),
    _counter("withdrawals_total", "routes", "Routes of jails that were withdrawn."),
    _counter("flaps_total", "flaps", "Losses of a jail's announcement that damping counts."),
    _counter("moves_total", "moves", "Changes of a jail's owner, as seen from this host."),
    _counter("ownership_refusals_total", "jails", "Jails that were not, or no longer, owned.", "kind"),
    _counter("failover_turns_total", "turns", "Turns of failovers to another stance.", "failover", "stance"),
    _counter("events_total", "events", "Events from the hooks that were dealt with.", "phase"),
    _histogram(
        "event_to_announced_seconds",
        EVENT_BUCKETS,
        "From a jail's poststart to ExaBGP's acknowledgement of its last route; one that is not acknowledged within "
        "`agent.settle_for` counts with that.",
    ),
    _histogram(
        "event_to_fib_seconds",
        EVENT_BUCKETS,
        "From a jail's prestart, created or poststart to its last route in this host's own kernel, where that made any.",
    ),
    _histogram(
        "event_to_withdrawn_seconds",
        EVENT_BUCKETS,
        "From a jail's prestop or poststop to ExaBGP's acknowledgement that its routes are withdrawn; one that is not "
        "acknowledged within `agent.settle_for` counts with that.",
    ),
    _histogram("command_seconds", COMMAND_BUCKETS, "How long the host's commands took.", "command"),
    _counter("command_failures_total", "commands", "Commands that failed.", "command"),
    _counter("spool_rejected_total", "files", "Files in the spool that are no events.", "reason"),
    _counter("database_errors_total", "errors", "Failed reads and writes of the database."),
    _counter("log_lines_suppressed_total", "lines", "Lines of the log that were not written, in a flood of them."),
    _counter("log_lines_lost_total", "lines", "Lines of the log that syslogd did not take."),
    _counter("metrics_errors_total", "errors", "Parts of these figures that could not be had.", "part"),
    _gauge("start_time_seconds", "seconds since 1970", "When the agent started."),
    _gauge("build_info", "1", "Which version runs.", "version"),
)

CATALOGUE = {figure.name: figure for figure in (*JAIL, *JAILS, *BGP, *FAILOVER, *HOST, *COUNTED)}
