"""A real Prometheus scrapes two agents, by deploy/prometheus' own rules: what happens in the lab, it tells; then it is silent.

One lab for all: a pair of gateways, so that there are CARP and pfsync, too. Its Prometheus lives sixty times as fast
(tests/lab/prometheus.py), and so does damping.
"""

from __future__ import annotations

import re
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.lab.grafana import NAMES, Grafana, Question, alerts, choices, questions
from tests.lab.ground import linux_only
from tests.lab.pair import HOLD_TIME, LANS, QUICK, VHIDS, Pair
from tests.lab.prometheus import FASTER, Prometheus, listens, targets
from tests.lab.topology import Host

#: Which jail runs where, on hosts a and b in turn.
JAILS = {"web1": ("198.51.100.7/32", "2001:db8:7::7/128"), "db1": ("198.51.100.8/32", "2001:db8:7::8/128")}

AGENT = {"look_every": 1.0, "reject_for": 0.2, "settle_for": 3.0, "drain_for": 0.2}
DAMPING = {"half_life": 300.0 / FASTER, "maximum": 900.0 / FASTER}
FAILOVER = "lan"
#: What the rules ask for and does not happen here: tests/unit/deploy has them happen.
NOT_SEEN = {
    'mobility_jail_ownership{kind="lost"}',
    'mobility_jail_ownership{kind=~"conflict|exhausted"}',
    'mobility_jail_ownership{kind=~"lost|conflict|frozen|exhausted"}',
}
#: CARP and pfsync count so many seconds in one.
PACE = 5.0


@dataclass(frozen=True)
class Watched:
    """Two gateways, a jail on each, and the Prometheus that watches them."""

    lab: Pair
    prometheus: Prometheus
    since: float = field(default_factory=time.time)

    @property
    def a(self) -> Host:
        """The gateway that is MASTER, and runs web1."""
        return self.lab.hosts[0]

    @property
    def b(self) -> Host:
        """The other one, which runs db1."""
        return self.lab.hosts[1]

    def await_routes(self, jail: str, *, via: Host | None) -> None:
        """Wait until the spine sends a jail's packets to a host, or to none."""
        for prefix in JAILS[jail]:
            self.lab.spine.fib.wait(prefix, via=via.address if via else None, gone=via is None)


def _start(pair: Pair, host: Host) -> None:
    paths = tomllib.loads(host.config.read_text())["paths"]
    host.configure(
        peers=[host.peers[0] | {"hold_time": HOLD_TIME}],
        paths={**paths, "devd": str(pair.kernel.devd(host.name))},
        agent=AGENT,
        damping=DAMPING,
        metrics={"listen": listens(host)},
        **{f"failover.{FAILOVER}": {"vhids": list(VHIDS), "services": list(LANS), **QUICK}},
    )
    host.start_agent()
    host.start_exabgp()
    for jail, prefixes in JAILS.items():
        host.define_jail(jail, prefixes)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Two gateways (a fixture of its own, so that its logs are in the report of what fails)."""
    linux_only("the lab's own kernel plays CARP and pfsync here")
    with Pair(pace=PACE) as whole:
        yield whole


@pytest.fixture(scope="module")
def watched(pair: Pair) -> Iterator[Watched]:
    """web1 runs on a, which is MASTER, db1 on b; both are scraped, a by IPv6, b by IPv4."""
    with Prometheus(pair.client, targets(pair.hosts)) as prometheus:
        # it takes five seconds to begin: they pass while the hosts start
        found = Watched(pair, prometheus)
        pair.carp()
        pair.pfsync()
        for host in pair.hosts:
            _start(pair, host)
        for host, jail in zip(pair.hosts, JAILS, strict=True):
            pair.await_session(host)
            host.start_jail(jail)
            found.await_routes(jail, via=host)
        pair.await_state(found.a, "MASTER")
        pair.leads_to(found.a)
        prometheus.await_query("sum(up) == 2")
        yield found


def test_at_rest_nothing_fires_and_every_rule_can_be_asked(watched: Watched) -> None:
    prometheus = watched.prometheus
    prometheus.await_query("sum(mobility_jail_announced) == 2")
    prometheus.await_query("count(instance:mobility_bgp_sessions_up:sum == 1) == 2")
    prometheus.await_(lambda: not prometheus.alerts(state=""), "rest: no alert, and none about to be one")
    prometheus.await_(lambda: all(rule["health"] == "ok" for rule in prometheus.rules()), "evaluation of every rule")
    assert not [rule for rule in prometheus.rules() if rule.get("lastError")]


def _flap(watched: Watched) -> None:
    """Stop web1, and start it again; until the spine has it."""
    watched.a.stop_jail("web1")
    watched.await_routes("web1", via=None)
    watched.a.start_jail("web1")
    watched.await_routes("web1", via=watched.a)


def test_a_jail_that_flaps_fires_the_alert_and_clears_it(watched: Watched) -> None:
    prometheus = watched.prometheus
    # three within the window, on a machine that is busy the last three of some more
    for _ in range(3):
        _flap(watched)
    for _ in range(9):
        if prometheus.alerts("MobilityJailFlapping", jail="web1"):
            break
        _flap(watched)
    alert = prometheus.await_alert("MobilityJailFlapping", jail="web1", instance="a")
    assert alert["labels"]["severity"] == "warning"
    assert alert["annotations"]["summary"] == "web1 flaps on a"
    assert "mobility explain web1" in alert["annotations"]["description"]
    # it stays up: the flaps leave the window, and there is nothing left to say
    prometheus.await_clear("MobilityJailFlapping")
    assert not prometheus.alerts("MobilityJailFlapping", state="", jail="db1")


def test_a_jail_whose_service_is_dead_is_told_with_the_reason(watched: Watched) -> None:
    prometheus, b = watched.prometheus, watched.b
    file = b.jails_d / "db1.toml"
    granted = file.read_text()
    # nobody listens there
    file.write_text(granted + '[[check]]\nkind = "tcp"\nport = 9\nfall = 1\n')
    watched.await_routes("db1", via=None)
    alert = prometheus.await_alert("MobilityJailNotAnnounced", jail="db1", instance="b")
    assert alert["labels"]["severity"] == "critical"
    assert "(not_ready): nobody reaches it" in alert["annotations"]["description"]
    file.write_text(granted)
    watched.await_routes("db1", via=b)
    prometheus.await_clear("MobilityJailNotAnnounced")


def test_a_host_without_a_session_is_one_alert_and_not_one_for_each_jail(watched: Watched) -> None:
    prometheus, b, spine = watched.prometheus, watched.b, watched.lab.spine
    spine.birdc(f"disable {b.session.name}")
    prometheus.await_alert("MobilityCutOff", instance="b")
    assert {alert["labels"]["alertname"] for alert in prometheus.alerts()} == {"MobilityCutOff"}
    for name in ("MobilityJailNotAnnounced", "MobilitySessionDown", "MobilityRibNotAcknowledged"):
        assert not prometheus.alerts(name, state=""), name
    spine.birdc(f"enable {b.session.name}")
    prometheus.await_clear("MobilityCutOff")
    watched.await_routes("db1", via=b)


def test_an_agent_that_is_down_is_told(watched: Watched) -> None:
    prometheus, b = watched.prometheus, watched.b
    b.stop_agent()
    alert = prometheus.await_alert("MobilityAgentDown", instance="b")
    assert alert["labels"]["severity"] == "critical"
    b.start_agent()
    prometheus.await_clear("MobilityAgentDown")


def test_two_masters_are_told_at_both(watched: Watched) -> None:
    prometheus, pair = watched.prometheus, watched.lab
    pair.split(watched.b)
    pair.await_state(watched.b, "MASTER")
    for name in ("a", "b"):
        alert = prometheus.await_alert("MobilityBothMaster", instance=name, vhid=VHIDS[0])
        assert alert["labels"]["failover"] == FAILOVER
    pair.split(watched.b, split=False)
    pair.await_state(watched.b, "BACKUP")
    pair.leads_to(watched.a)
    prometheus.await_clear("MobilityBothMaster")


def test_every_rule_asks_for_series_that_are_there(watched: Watched) -> None:
    """A label's value that no agent ever has would make an alert that never fires."""
    prometheus = watched.prometheus
    asked = {
        "".join(found)
        for rule in prometheus.rules()
        for found in re.findall(r"(?<![\w:])(mobility_\w+)(\{.*?\})?(?![\w:])", rule["query"])
    }
    assert len(asked) > 40
    missing = {selector for selector in asked if not prometheus.query(f"last_over_time({selector}[1h])")}
    assert missing == NOT_SEEN


# -- deploy/grafana: what its dashboards and its rules ask, asked of the same Prometheus


@pytest.fixture(scope="module")
def grafana(watched: Watched) -> Grafana:
    """All the time until now, in which web1 moved to b and back, and was drained."""
    prometheus, a, b = watched.prometheus, watched.a, watched.b
    for source, target in ((a, b), (b, a)):
        source.stop_jail("web1")
        target.start_jail("web1")
        watched.await_routes("web1", via=target)
        prometheus.await_query(f'mobility_jail_announced{{jail="web1", instance="{target.name}"}} == 1')
    a.mobility("drain", "web1")
    prometheus.await_query('mobility_jail_not_announced{jail="web1", reason="drained"}')
    a.mobility("undrain", "web1")
    prometheus.await_query('mobility_jail_announced{jail="web1", instance="a"} == 1')
    return Grafana(prometheus, watched.since, time.time())


@pytest.mark.parametrize("name", NAMES)
def test_each_panel_of_a_dashboard_has_data(grafana: Grafana, name: str) -> None:
    chosen = {"job": "mobility", "instance": "a", "jail": "web1"}
    empty = [question for question in questions(name) if not grafana.series(question, chosen)]
    assert not empty, [(question.where, grafana.expression(question, chosen)) for question in empty]


@pytest.mark.parametrize("name", NAMES)
def test_each_variable_of_a_dashboard_has_values(grafana: Grafana, name: str) -> None:
    expected = {"job": {"mobility"}, "instance": {"a", "b"}, "jail": set(JAILS)}
    for variable, asked in choices(name):
        assert set(grafana.values(asked, {"job": "mobility"})) == expected[variable], asked


def test_grafanas_own_rules_ask_what_prometheus_rules_ask(watched: Watched) -> None:
    """Each is asked; what has fired in Prometheus had data there, too; and there is no figure in them that is not there."""
    prometheus = watched.prometheus
    grafana = Grafana(prometheus, watched.since, time.time(), factor=FASTER)
    loaded = {rule["name"]: rule["query"] for rule in prometheus.rules() if rule["type"] == "alerting"}
    fired = {dict(labels)["alertname"] for labels in grafana.series(Question("", 'ALERTS{alertstate="firing"}'), {})}
    rules = {rule.where: rule for rule in alerts()}
    assert set(rules) == set(loaded)
    for name, rule in rules.items():
        said = prometheus.ask("format_query", query=grafana.expression(rule, {}))
        assert said == prometheus.ask("format_query", query=loaded[name]), name
        assert grafana.series(rule, {}) or name not in fired, name
    known = set(prometheus.ask("label/__name__/values"))
    asked = {name for rule in rules.values() for name in re.findall(r"[\w:]*mobility_[\w:]+", rule.expr)}
    assert asked <= known
