"""The dashboards of mobility, as code: `python -m deploy.grafana.dashboards` writes boards/*.json beside this file.

fleet is the one to begin with: what is dark, what flaps, who answers. A click on a host or a jail leads to host and jail.
Each panel answers one question, which is its title; its description says what to do about the answer.

What a dashboard is: https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/ (the
classic model), in detail kinds/dashboard/dashboard_kind.cue of Grafana's sources. tests/grafana.py has what is used of it
as a JSON Schema. Grafana 9.5 and newer; nothing but the plug-ins that come with it.

A panel that is empty says neither yes nor no. So what counts failures says 0 where there was none yet (`or`).
"""

from __future__ import annotations

import json
from pathlib import Path

from deploy.grafana.panels import (
    ALWAYS,
    BARS,
    BLUE,
    FEW,
    GREEN,
    GREY,
    NONE,
    RED,
    YELLOW,
    Json,
    annotation,
    bars,
    dashboard,
    field,
    heatmap,
    meanings,
    now,
    quantile,
    query,
    row,
    stat,
    table,
    thresholds,
    timeline,
    timeseries,
    variable,
)
from mobility.metrics.causes import MEANINGS

HERE = Path(__file__).parent
FOLDER = HERE / "boards"

TO_HOST = "/d/mobility-host?${datasource:queryparam}&${job:queryparam}&${__url_time_range}&var-instance="
TO_JAIL = "/d/mobility-jail?${datasource:queryparam}&${job:queryparam}&${__url_time_range}&var-jail="


# -- what several dashboards say

#: One number for each vhid: which state it is in.
CARP_WORDS = {2: ("MASTER", GREEN), 1: ("BACKUP", BLUE), 0: ("INIT", YELLOW), -1: ("is not there", RED)}
YES = {0: ("no", RED), 1: ("yes", GREEN)}
#: What each word of a metric's `reason` means.
REASONS: Json = {
    "mappings": [
        {"type": "value", "options": {word.value: {"text": f"{word}: {text}"} for word, text in MEANINGS.items()}}
    ]
}
UP = {0: ("down", RED), 1: ("up", GREEN)}


def fabric() -> Json:
    """Return the choice of a fabric: one job of Prometheus (deploy/prometheus/prometheus.yml)."""
    text = "Hosts that share their jails: one job of Prometheus, whose name begins with mobility"
    return variable("job", "fabric", text, 'label_values(up{job=~"mobility.*"}, job)')


def events(where: str) -> list[Json]:
    """Return the marks that all dashboards have: a jail flapped, or moved."""
    return [
        annotation(
            "Flaps",
            "orange",
            f"sum by (instance, jail) (increase(mobility_jail_flaps_total{where}[1m])) > 0",
            "{{jail}} flapped",
            "on {{instance}}: it stopped, died, or was not ready any more",
        ),
        annotation(
            "Moves",
            BLUE,
            f"sum by (instance, jail) (increase(mobility_jail_moves_total{where}[1m])) > 0",
            "{{jail}} moved",
            "seen on {{instance}}: the fabric shows another owner",
        ),
    ]


def carp(where: str) -> str:
    """Return the state of each vhid as a number of CARP_WORDS."""

    def state(name: str) -> str:
        return f'mobility_carp_state{{state="{name}"{where}}}'

    known = f"2 * {state('MASTER')} or {state('BACKUP')} or 0 * {state('INIT')}"
    return f"max by (instance, vhid) ({known} or -1 * {state('')})"


# -- fleet


def fleet() -> Json:
    """Return the dashboard of all hosts: is anything wrong, and where."""
    here = '{job="$job"}'
    wrong = row(
        "Is anything wrong? All of these should be 0",
        stat(
            "Agents that do not answer",
            "Hosts whose agent Prometheus can not reach. Their jails' routes stay in the fabric as they were; nobody moves or "
            "mends them. On the host: service mobility status, then /var/log/mobility.log.",
            query(f"count(up{here}) - sum(up{here})"),
            3,
            field("short", NONE),
        ),
        stat(
            "Jails in the dark",
            "Jails that run, may be announced, and are not: nobody reaches them. The table below names them with the reason.",
            query(f"sum(mobility_jails_dark{here})"),
            3,
            field("short", NONE),
        ),
        stat(
            "Black holes",
            "Jails that are announced and do not run here: packets come to a host that has nobody for them. It ends with the "
            "next look of that host's agent; if not, on the host: mobility explain NAME.",
            query(f"sum(mobility_jails_blackholed{here})"),
            3,
            field("short", NONE),
        ),
        stat(
            "Kept back for flapping",
            "Jails that went up and down too often, and are not announced until they have been quiet. Mend what makes them "
            "fall; mobility doctor shows which.",
            query(f"sum(mobility_jails_suppressed{here})"),
            3,
            field("short", FEW),
        ),
        stat(
            "Conflicts and freezes",
            "Jails whose addresses another jail claims, or that moved so often that nobody moves them any more. A person has "
            "to decide: mobility status names both sides.",
            query('sum(mobility_jails_ownership{job="$job", kind=~"conflict|frozen|exhausted"})'),
            3,
            field("short", NONE),
        ),
        stat(
            "BGP sessions down",
            "Sessions of all hosts that are not established. A host with none is cut off.",
            query(f"count(mobility_bgp_session_up{here}) - sum(mobility_bgp_session_up{here})"),
            3,
            field("short", NONE),
        ),
        stat(
            "Routes not acknowledged",
            "Routes that agents want to have told and ExaBGP has not acknowledged. A moment is normal, a minute is not: is "
            "the bridge connected?",
            query('sum(mobility_rib_routes{job="$job", state="differing"})'),
            3,
            field("short", ((None, GREEN), (1, YELLOW), (10, RED))),
        ),
        stat(
            "Vhids with two masters",
            "Vhids of which both nodes say that they are MASTER. They do not hear each other: look at the cable and the filter "
            "between them. Prometheus' rules.yml counts them.",
            query(
                f"sum(job_failover_id:mobility_carp_masters:count{here} "
                f"> bool job_failover_id:mobility_carp_lans:max{here})"
            ),
            3,
            field("short", NONE),
        ),
    )
    which = row(
        "Which jails",
        table(
            "Which jails run and are not announced?",
            "Each jail that runs and is not in the fabric, with why. starting, drained, failover: somebody wants it so. Of "
            "all others mobility explain NAME on that host says more. Empty is good.",
            [f"max by (instance, jail, reason) (mobility_jail_not_announced{here})"],
            14,
            {"jail": "jail", "instance": "host", "reason": "why not"},
            links={"jail": TO_JAIL, "host": TO_HOST},
            looks={"why not": REASONS},
        ),
        bars(
            "Which jails flapped most?",
            "How often each of these stopped, died or was not ready any more, in the time shown.",
            now(f"topk(8, sum by (jail) (increase(mobility_jail_flaps_total{here}[$__range])))", "{{jail}}"),
            5,
            {"title": "this jail", "url": TO_JAIL + "${__field.labels.jail}", "targetBlank": False},
        ),
        bars(
            "Which jails moved most?",
            "How often the fabric showed another owner, in the time shown. One that moves and moves is claimed by two hosts.",
            now(f"topk(8, max by (jail) (increase(mobility_jail_moves_total{here}[$__range])))", "{{jail}}"),
            5,
            {"title": "this jail", "url": TO_JAIL + "${__field.labels.jail}", "targetBlank": False},
        ),
    )
    hosts = row(
        "Which hosts",
        table(
            "How is each host?",
            "One line for each agent. Waiting: how long its oldest event has been in the spool. Last look: how long ago it "
            "looked at the whole host.",
            [
                f"max by (instance) (up{here})",
                f"max by (instance) (mobility_jails_running{here})",
                f"max by (instance) (mobility_jails_announced{here})",
                f"max by (instance) (mobility_jails_dark{here})",
                f"sum by (instance) (mobility_bgp_session_up{here})",
                f"max by (instance) (mobility_spool_oldest_seconds{here})",
                f"time() - max by (instance) (mobility_last_look_timestamp_seconds{here})",
                f"max by (instance) (mobility_draining{here})",
                f"max by (instance, version) (mobility_build_info{here})",
            ],
            24,
            {
                "instance": "host",
                "Value #A": "agent",
                "Value #B": "running",
                "Value #C": "announced",
                "Value #D": "dark",
                "Value #E": "sessions up",
                "Value #F": "waiting",
                "Value #G": "last look",
                "Value #H": "draining",
                "version": "version",
            },
            links={"host": TO_HOST},
            looks={
                "agent": {"mappings": meanings(UP), "thresholds": thresholds(ALWAYS)},
                "dark": {"thresholds": thresholds(NONE)},
                "sessions up": {"thresholds": thresholds(ALWAYS)},
                "waiting": {
                    "unit": "s",
                    "decimals": 0,
                    "thresholds": thresholds(((None, GREEN), (10, YELLOW), (60, RED))),
                },
                "last look": {
                    "unit": "s",
                    "decimals": 0,
                    "thresholds": thresholds(((None, GREEN), (60, YELLOW), (180, RED))),
                },
                "draining": {
                    "mappings": meanings({0: ("no", GREEN), 1: ("yes", YELLOW)}),
                    "thresholds": thresholds(FEW),
                },
            },
            height=6,
        ),
        timeline(
            "Who is master?",
            "Each host's CARP vhids. Of a pair one is MASTER and the other BACKUP; INIT is an interface that is down.",
            [query(carp(', job="$job"'), "{{instance}} {{vhid}}")],
            12,
            CARP_WORDS,
        ),
        timeseries(
            "Do flaps and moves come in waves?",
            "All jails of each host. A wave on one host is that host; a wave on all is the fabric.",
            [
                query(
                    f"sum by (instance) (increase(mobility_flaps_total{here}[$__rate_interval]))", "flaps {{instance}}"
                ),
                query(
                    f"sum by (instance) (increase(mobility_moves_total{here}[$__rate_interval]))", "moves {{instance}}"
                ),
            ],
            12,
            "short",
            **BARS,
        ),
    )
    fast = row(
        "How fast",
        timeseries(
            "How long from a jail's start to its announcement?",
            "From the hook's event to ExaBGP's acknowledgement of the jail's last route: half of them, and all but one in a "
            "hundred. Milliseconds are normal; checks that have to pass first count, too.",
            [
                query(quantile(0.5, "mobility_event_to_announced_seconds", where=here), "half"),
                query(quantile(0.99, "mobility_event_to_announced_seconds", where=here), "99 %"),
            ],
            12,
            "s",
        ),
        heatmap(
            "Are there slow ones among them?",
            "The same, each start counted: a second band far above the first is one kind of jail, or one host.",
            f"sum by (le) (increase(mobility_event_to_announced_seconds_bucket{here}[$__rate_interval]))",
            12,
        ),
    )
    text = "All hosts that run mobility: what is dark, what flaps, who answers. Begin here."
    return dashboard("fleet", text, [fabric()], events(here), [wrong, which, hosts, fast])


# -- host


def host() -> Json:
    """Return the dashboard of one host."""
    here = '{job="$job", instance="$instance"}'
    also = ', job="$job", instance="$instance"'
    state = row(
        "$instance: is it well?",
        stat(
            "Agent",
            "Whether Prometheus reaches the agent. If not, on the host: service mobility status.",
            query(f"up{here}"),
            3,
            field("short", ALWAYS, mappings=meanings(UP)),
        ),
        stat(
            "Last look",
            "How long ago the agent looked at the whole host (agent.look_every in mobility.toml). If it grows, a command "
            "hangs: see the commands below.",
            query(f"time() - mobility_last_look_timestamp_seconds{here}"),
            3,
            field("s", ((None, GREEN), (60, YELLOW), (180, RED)), decimals=0),
        ),
        stat(
            "Jails in the dark",
            "Jails that run, may be announced, and are not.",
            query(f"mobility_jails_dark{here}"),
            3,
            field("short", NONE),
        ),
        stat(
            "Black holes",
            "Jails that are announced and do not run here.",
            query(f"mobility_jails_blackholed{here}"),
            3,
            field("short", NONE),
        ),
        stat(
            "ExaBGP's bridge",
            "Whether ExaBGP is connected to the agent. If not, nothing changes in the fabric: "
            "service mobility_exabgp status.",
            query(f"mobility_bridge_connected{here}"),
            3,
            field("short", ALWAYS, mappings=meanings(YES)),
        ),
        stat(
            "Oldest event waits",
            "How long the oldest event of the hooks has been in the spool. Jails wait for theirs when they start.",
            query(f"mobility_spool_oldest_seconds{here}"),
            3,
            field("s", ((None, GREEN), (10, YELLOW), (60, RED)), decimals=0),
        ),
        stat(
            "Draining",
            "Whether this host, or a jail of it, has been told to give its addresses away: mobility status; mobility undrain.",
            query(f"mobility_draining{here}"),
            3,
            field("short", FEW, mappings=meanings({0: ("no", GREEN), 1: ("yes", YELLOW)})),
        ),
        stat(
            "Version",
            "Which mobility the agent runs.",
            now(f"mobility_build_info{here}", "{{version}}"),
            3,
            field("short"),
            show="name",
        ),
    )
    jails = row(
        "Jails",
        timeseries(
            "How many jails run, and are announced?",
            "The lines lie on each other when all is well.",
            [
                query(f"mobility_jails_running{here}", "running"),
                query(f"mobility_jails_announced{here}", "announced"),
                query(f"mobility_jails_suppressed{here}", "kept back for flapping"),
                query(f"mobility_jails_frozen{here}", "frozen"),
            ],
            8,
            "short",
        ),
        table(
            "Which are not announced, and why?",
            "Each jail that runs here and is not in the fabric. mobility explain NAME says more. Empty is good.",
            [f"max by (jail, reason) (mobility_jail_not_announced{here})"],
            8,
            {"jail": "jail", "reason": "why not"},
            links={"jail": TO_JAIL},
            looks={"why not": REASONS},
        ),
        timeseries(
            "Who owns the jails that run here?",
            "held: this host. lost: a newer claim was seen, the jail runs elsewhere, too. conflict and frozen want a person.",
            [query(f"sum by (kind) (mobility_jails_ownership{here})", "{{kind}}")],
            8,
            "short",
        ),
    )
    bgp = row(
        "BGP",
        timeline(
            "Is BGP up?",
            "The session to each peer. Down for longer than the hold time: is the router there, does its address answer?",
            [query(f"max by (peer) (mobility_bgp_session_up{here})", "{{peer}}")],
            8,
            UP,
        ),
        timeseries(
            "Is the RIB acknowledged?",
            "What the agent wants told, and what ExaBGP has acknowledged. Older claims: jails of which a peer still shows an "
            "owner that is no more, so that agent and fabric disagree.",
            [
                query(
                    f'mobility_rib_routes{{state=~"desired|acknowledged|differing"{also}}}',
                    "{{state}}",
                ),
                query(f"sum by (peer) (mobility_bgp_routes_held_back{here})", "held back from {{peer}}"),
                query(f"mobility_fabric_older_claims{here}", "older claims"),
            ],
            8,
            "short",
        ),
        timeseries(
            "Do sessions and ExaBGP come and go?",
            "Changes of sessions, and starts of ExaBGP. Flat at 0 but for maintenance.",
            [
                query(
                    f"sum by (peer) (increase(mobility_bgp_session_changes_total{here}[$__rate_interval])) "
                    f"or 0 * max by (peer) (mobility_bgp_session_up{here})",
                    "{{peer}}",
                ),
                query(f"increase(mobility_exabgp_restarts_total{here}[$__rate_interval])", "ExaBGP started"),
            ],
            8,
            "short",
            **BARS,
        ),
    )
    fast = row(
        "How fast",
        timeseries(
            "How long until the fabric knows?",
            "All but one in a hundred: from an event to the announcement, to the last route on this host, to the withdrawal.",
            [
                query(quantile(0.99, "mobility_event_to_announced_seconds", where=here), "announced, 99 %"),
                query(quantile(0.99, "mobility_event_to_fib_seconds", where=here), "routed on the host, 99 %"),
                query(quantile(0.99, "mobility_event_to_withdrawn_seconds", where=here), "withdrawn, 99 %"),
            ],
            8,
            "s",
        ),
        heatmap(
            "Are there slow starts among them?",
            "From the event to the announcement, each start counted.",
            f"sum by (le) (increase(mobility_event_to_announced_seconds_bucket{here}[$__rate_interval]))",
            8,
        ),
        timeseries(
            "Do events wait?",
            "Events in the spool that are not dealt with, and files in it that are no events.",
            [
                query(f"mobility_spool_depth{here}", "waiting"),
                query(
                    f"sum(increase(mobility_spool_rejected_total{here}[$__rate_interval]))",
                    "rejected",
                ),
            ],
            8,
            "short",
        ),
    )
    trouble = row(
        "Commands, checks, database",
        timeseries(
            "Are the host's commands slow?",
            "All but one in a hundred of ifconfig, route and so on. Milliseconds are normal; "
            "agent.command_timeout gives them up.",
            [query(quantile(0.99, "mobility_command_seconds", "command", here), "{{command}}")],
            8,
            "s",
        ),
        timeseries(
            "What fails?",
            "Commands, reads and writes of the database that failed, and lines of the log that were left out in a flood. "
            "Flat at 0 is good; what it was stands in /var/log/mobility.log.",
            [
                query(
                    f"sum by (command) (increase(mobility_command_failures_total{here}[$__rate_interval])) "
                    f"or 0 * sum by (command) (mobility_command_seconds_count{here})",
                    "{{command}}",
                ),
                query(f"increase(mobility_database_errors_total{here}[$__rate_interval])", "database"),
                query(f"increase(mobility_log_lines_suppressed_total{here}[$__rate_interval])", "lines left out"),
            ],
            8,
            "short",
            **BARS,
        ),
        timeseries(
            "Do checks of jails fail?",
            "Checks a second, by kind, and those that failed. A jail is announced only while its checks pass.",
            [
                query(f"sum by (kind) (rate(mobility_check_runs_total{here}[$__rate_interval]))", "{{kind}}: made"),
                query(
                    f"sum by (kind) (rate(mobility_check_failures_total{here}[$__rate_interval])) "
                    f"or 0 * sum by (kind) (mobility_check_runs_total{here})",
                    "{{kind}}: failed",
                ),
            ],
            8,
            "cps",
        ),
    )
    pair = row(
        "Gateway pair (empty where there is no failover)",
        timeline(
            "Is this node master?",
            "The state of each vhid of a failover.",
            [query(carp(also), "{{vhid}}")],
            8,
            CARP_WORDS,
        ),
        timeseries(
            "Who demotes this node?",
            "What was added to net.inet.carp.demotion, by mobility and by others (pfsync, an interface, a person). "
            "0 is a node that may be master.",
            [query(f"mobility_carp_demotion{here}", "{{by}}")],
            6,
            "short",
        ),
        timeline(
            "How are its prefixes announced?",
            "The stance of each failover: preferred, less (by a longer path), withdrawn. mobility status has the reason.",
            [query(f"max by (failover, stance) (mobility_failover_stance{here})", "{{failover}}: {{stance}}")],
            6,
            {1: ("now", BLUE)},
        ),
        stat(
            "pfsync in step",
            "Whether this node has all states of the other. Not so on a master: connections die when it falls.",
            query(f"mobility_pfsync_in_step{here}"),
            4,
            field("short", ALWAYS, mappings=meanings(YES)),
            height=8,
        ),
    )
    text = "One host: its jails, its BGP, its commands, its part in a gateway pair."
    asked = variable("instance", "host", "The host, as Prometheus knows it", 'label_values(up{job="$job"}, instance)')
    return dashboard("host", text, [fabric(), asked], events(here), [state, jails, bgp, fast, trouble, pair])


# -- jail

#: `running + 2 * announced` of a jail on a host.
WHERE_WORDS = {
    0: ("not here", GREY),
    1: ("runs, not announced", RED),
    2: ("announced, does not run", RED),
    3: ("runs and is announced", GREEN),
}


def jail() -> Json:
    """Return the dashboard of one jail, on whichever hosts."""
    this = '{job="$job", jail="$jail"}'
    counted = "in the time shown, on all hosts"
    state = row(
        "$jail: where is it?",
        timeline(
            "Where does it run, and who announces it?",
            "One line for each host that knows the jail. Exactly one should be green. Red, runs: mobility explain $jail on "
            "that host says why. Red, does not run: packets go nowhere, until that host's agent looks again.",
            [query(f"mobility_jail_running{this} + 2 * mobility_jail_announced{this}", "{{instance}}")],
            16,
            WHERE_WORDS,
        ),
        table(
            "Who owns it, says each host",
            "held: this host. lost: a newer claim was seen. conflict, frozen: a person has to decide.",
            [f"max by (instance, kind) (mobility_jail_ownership{this})"],
            8,
            {"instance": "host", "kind": "ownership"},
            links={"host": TO_HOST},
        ),
    )
    numbers = row(
        "How restless is it?",
        stat(
            "Flaps",
            f"How often it stopped, died or was not ready any more, {counted}.",
            now(f"sum(increase(mobility_jail_flaps_total{this}[$__range]))"),
            6,
            field("short", ((None, GREEN), (1, YELLOW), (4, RED)), decimals=0),
        ),
        stat(
            "Moves",
            f"How often the fabric showed another owner, {counted}.",
            now(f"max(increase(mobility_jail_moves_total{this}[$__range]))"),
            6,
            field("short", ((None, GREEN), (4, YELLOW)), decimals=0),
        ),
        stat(
            "Conflicts",
            f"How often another jail's claim was seen on one of its addresses, {counted}. Two jails have been given one.",
            now(f"sum(increase(mobility_jail_conflicts_total{this}[$__range]))"),
            6,
            field("short", NONE, decimals=0),
        ),
        stat(
            "Kept back",
            "Whether a host keeps it back because it flapped. It ends by itself once it is quiet.",
            query(f"max(mobility_jail_suppressed{this})"),
            6,
            field("short", FEW, mappings=meanings({0: ("no", GREEN), 1: ("yes", YELLOW)})),
        ),
        timeseries(
            "How much do its flaps count?",
            "The penalty of damping: each flap adds, time takes away. Above damping.suppress it is kept back, until it is "
            "below damping.reuse (mobility.toml).",
            [query(f"mobility_jail_damping_penalty{this}", "{{instance}}")],
            8,
            "short",
        ),
        timeseries(
            "Was it announced and withdrawn?",
            "Routes that were announced and withdrawn for it.",
            [
                query(f"increase(mobility_jail_announcements_total{this}[$__rate_interval])", "announced {{instance}}"),
                query(f"increase(mobility_jail_withdrawals_total{this}[$__rate_interval])", "withdrawn {{instance}}"),
            ],
            8,
            "short",
            **BARS,
        ),
        timeline(
            "Is it wanted, is it ready?",
            "wanted: it runs, has addresses, nobody stops or drains it. ready: its checks pass. Both: it is announced, unless "
            "it is kept back or another owns it.",
            [
                query(f"mobility_jail_wanted{this}", "wanted {{instance}}"),
                query(f"mobility_jail_ready{this}", "ready {{instance}}"),
            ],
            8,
            {0: ("no", GREY), 1: ("yes", GREEN)},
        ),
        table(
            "Why is it not announced?",
            "The reason of each host where it runs and is not announced. Empty is good.",
            [f"max by (instance, reason) (mobility_jail_not_announced{this})"],
            24,
            {"instance": "host", "reason": "why not"},
            links={"host": TO_HOST},
            looks={"why not": REASONS},
            height=5,
        ),
    )
    text = (
        "One jail on all hosts: where it runs, who announces it, who owns it, and how restless it is. A host tells of at most "
        "metrics.jails jails one by one (mobility.toml); what is left out it counts as mobility_jails_without_series."
    )
    asked = variable("jail", "jail", "The jail", 'label_values(mobility_jail_running{job="$job"}, jail)')
    return dashboard("jail", text, [fabric(), asked], events(this), [state, numbers])


def rendered(found: Json) -> str:
    """Return a dashboard as the text of its file."""
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def dashboards() -> dict[str, Json]:
    """Return all dashboards, by the names of their files."""
    return {f"{name}.json": make() for name, make in (("fleet", fleet), ("host", host), ("jail", jail))}


def main() -> None:
    """Write all dashboards."""
    FOLDER.mkdir(exist_ok=True)
    for name, found in dashboards().items():
        (FOLDER / name).write_text(rendered(found))


if __name__ == "__main__":
    main()
