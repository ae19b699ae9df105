"""`mobility explain`: in each state the sentence is the right one, and says what to do next."""

from __future__ import annotations

from typing import Any

import pytest

from mobility.terminal.explain import Verdict, story, verdict
from mobility.terminal.text import Palette
from tests.unit.terminal.made import NOW, check, dark, jail, stopped
from tests.unit.terminal.made import story as made

AWAY = {"bridge": False}
DOWN = {
    "sessions": [
        {"peer": "spine", "state": "down", "since": NOW - 30, "reason": "hold timer expired"},
        {"peer": "spine2", "state": "down", "since": NOW - 30, "reason": ""},
    ]
}
UNGRANTED: dict[str, Any] = {"source": "", "addresses": []}
CLAIM = {"prefix": "198.51.100.7/32", "host": "10.0.0.2", "sequence": 30, "handing": False, "ours": False, "same": True}
GROUP: dict[str, Any] = {
    "name": "lan",
    "stance": "withdrawn",
    "role": "backup",
    "reason": "BACKUP, and the other node's preferred path is seen",
    "vhids": {"1@ix1": "BACKUP"},
    "announced": False,
    "pfsync": {"syncok": True},
    "preempt": 1,
    "demotion": {"total": 240, "ours": 240, "reason": "this host is drained", "wanted": 240, "lines": []},
    "problems": [],
}


def routes(**peers: str) -> dict[str, dict[str, str]]:
    return {"198.51.100.7": peers, "2001:db8:7::7": peers}


def event(what: str, detail: str = "") -> dict[str, Any]:
    return {"id": 7, "at": NOW - 60, "jail": "web1", "what": what, "detail": detail}


def waiting(**more: Any) -> dict[str, Any]:
    """A jail that should be announced, and that no peer has."""
    return dark(ready=True, stand="announced", reason="", **more)


STATES: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "as it should be": (
        made(jail=jail()),
        "web1 runs here and is announced to spine, as it should be",
        "nothing",
        "good",
    ),
    "not known here": (
        made(jail=stopped("wbe1"), known=False, like="did you mean web1?", config=UNGRANTED),
        "wbe1 is not known here: no file grants it an address, and no jail of that name runs",
        'did you mean web1? Else write addresses = ["..."] into /usr/local/etc/mobility/jails.d/wbe1.toml',
        "bad",
    ),
    "not known, and like nothing": (
        made(jail=stopped("x"), known=False, config=UNGRANTED),
        "x is not known here: no file grants it an address, and no jail of that name runs",
        'write addresses = ["..."] into /usr/local/etc/mobility/jails.d/x.toml; mobility check says what counts',
        "bad",
    ),
    "runs, and nobody grants it anything": (
        made(jail=dark(), config=UNGRANTED),
        "web1 runs (jid 5), but it is not granted any address: no file does",
        'write addresses = ["..."] into /usr/local/etc/mobility/jails.d/web1.toml, then: service mobility reload',
        "bad",
    ),
    "runs, and asks in vain": (
        made(jail=dark(), config=UNGRANTED | {"refused": ["rc.conf: it asks: 192.0.2.9 is not granted"]}),
        "web1 runs (jid 5), but it is not granted any address: rc.conf: it asks: 192.0.2.9 is not granted",
        'write addresses = ["..."] into /usr/local/etc/mobility/jails.d/web1.toml, then: service mobility reload',
        "bad",
    ),
    "not granted, and does not run": (
        made(jail=stopped(), config=UNGRANTED | {"refused": ["jail web1 may not have 192.0.2.9"]}),
        "web1 does not run, and would get no network: jail web1 may not have 192.0.2.9",
        "mend that: mobility check",
        "bad",
    ),
    "a broken file, and it does not run": (
        made(jail=stopped(), config=UNGRANTED | {"problem": "web1.toml: is no TOML"}),
        "web1 does not run, and its start would be refused: web1.toml: is no TOML",
        "mend that: mobility check",
        "bad",
    ),
    "a broken file while it runs": (
        made(jail=jail(reason="web1.toml: is no TOML"), config={"problem": "web1.toml: is no TOML"}),
        "web1 runs with what it had, because its file is broken: web1.toml: is no TOML",
        "mend that: mobility check",
        "bad",
    ),
    "granted, and not running": (
        made(jail=stopped()),
        "web1 does not run here, and no other host is seen to announce it",
        "start it: jail -c web1",
        "faint",
    ),
    "of Bastille's, and the fabric is silent": (
        made(jail=stopped(), config={"manager": "bastille"}, host={"heard": False}),
        (
            "web1 does not run here, and no other host is seen to announce it, as far as is known: the fabric has not told yet "
            "what it has"
        ),
        "start it: bastille start web1",
        "faint",
    ),
    "runs elsewhere": (
        made(jail=stopped(), ownership={"shown": [CLAIM | {"sequence": 29, "host": "10.0.0.3"}, CLAIM]}),
        "web1 does not run here; 10.0.0.2 announces it, with sequence 30",
        "nothing; to have it here: mobility handoff web1 there, mobility expect web1 here, then start it",
        "faint",
    ),
    "runs elsewhere, and is frozen": (
        made(jail=stopped(), ownership={"shown": [CLAIM], "frozen_at": NOW - 9, "moves": 5, "owner": "10.0.0.2"}),
        (
            "web1 does not run here; 10.0.0.2 announces it; it has moved too often and is frozen, so it would not be announced "
            "if it were started here"
        ),
        "nothing while it runs elsewhere; to have it here: mobility release web1",
        "held",
    ),
    "another jail has its address": (
        made(jail=stopped(), config={"others": ["db1", "dns1"], "held_by": ["db1"]}),
        "web1 does not run, and can not be started while db1 runs here: they share an address",
        "stop db1, or take the address out of one of the two files",
        "held",
    ),
    "about to start": (
        made(jail=stopped(stand="paired"), observed={"hook": "prestart", "hook_at": NOW - 2}),
        "web1 is about to start: its prestart hook came 2s ago, its link is made, and it is announced when it has started",
        "nothing",
        "held",
    ),
    "its last start was refused": (
        made(
            jail=stopped(),
            events=[
                event("prestart"),
                event("problem", "an older one"),
                event("prestart"),
                event("problem", "jail web1: 198.51.100.7 is held by jail db1, which runs"),
                event("poststop"),
            ],
        ),
        (
            "web1 does not run, because its last start was refused at 2026-11-21 15:59:00Z: 198.51.100.7 is held by jail db1, "
            "which runs"
        ),
        "mend that, then start it: jail -c web1",
        "bad",
    ),
    "an older start was refused": (
        made(jail=stopped(), events=[event("problem", "no"), event("prestart"), event("announced"), event("poststop")]),
        "web1 does not run here, and no other host is seen to announce it",
        "start it: jail -c web1",
        "faint",
    ),
    "its start is refused now": (
        made(jail=stopped(), problem="jail web1: 198.51.100.7 is held by jail db1, which runs"),
        "web1 does not run, and 198.51.100.7 is held by jail db1, which runs",
        "mobility plan web1; then /var/log/mobility.log",
        "bad",
    ),
    "starting": (
        made(
            jail=dark(reason="is starting: its poststart hook has not come yet"),
            observed={"hook": "created", "hook_at": NOW - 4},
        ),
        "web1 is starting: its created hook came 4s ago, and it is announced when its poststart hook comes",
        "nothing; if its start is over and this stays: mobility hooks status jail.conf",
        "held",
    ),
    "stopping": (
        made(jail=dark(stand="closing"), observed={"hook": "prestop", "hook_at": NOW - 1}),
        "web1 is stopping: its prestop hook came 1s ago, and it is withdrawn",
        "nothing",
        "held",
    ),
    "can not be wired": (
        made(jail=dark(), problem="jail web1: ifconfig epair7 create: no such luck"),
        "web1 runs, and ifconfig epair7 create: no such luck",
        "mobility plan web1; then /var/log/mobility.log",
        "bad",
    ),
    "waits for its first check": (
        made(jail=dark(checks=[check(at=None, ready=False), check("tcp port 80", at=None, ready=False)])),
        "web1 runs, and waits for the first answer to its check reach 198.51.100.7, and 1 more",
        "nothing",
        "held",
    ),
    "a check fails": (
        made(
            jail=dark(
                checks=[
                    check("reach 198.51.100.7", at=None, ready=False),
                    check("tcp port 80 at 198.51.100.7", ready=False, said="Connection refused"),
                ]
            )
        ),
        "web1 runs, and is not ready: its check tcp port 80 at 198.51.100.7 says Connection refused, 7s ago, and 1 more",
        "does it listen there? jexec web1 sockstat -l",
        "bad",
    ),
    "a command in it fails": (
        made(jail=dark(checks=[check("exec /bin/false -x", ready=False, said="exit status 1", streak=1, rise=2)])),
        "web1 runs, and is not ready: its check exec /bin/false -x says exit status 1 (1 good of 2 in a row), 7s ago",
        "run it: jexec -l web1 /bin/false -x",
        "bad",
    ),
    "suppressed": (
        made(
            jail=dark(penalty=6538.0),
            damping={"suppressed": True, "since": NOW - 60, "until": NOW + 338, "penalty": 6538.0},
        ),
        (
            "web1 runs, and is suppressed: its routes came and went too often; it is announced again at 2026-11-21 16:05:38Z, "
            "in 5 min 38 s, if it stays up"
        ),
        "find out why (mobility history web1); at once: mobility release web1",
        "held",
    ),
    "owned elsewhere": (
        made(
            jail=dark(ownership="lost"),
            ownership={
                "reason": "10.0.0.2 has claimed it with sequence 30, here it had 29: this is the older copy, stop it",
                "shown": [CLAIM],
            },
        ),
        (
            "web1 runs, but it is owned elsewhere: 10.0.0.2 has claimed it with sequence 30, here it had 29; this is the older "
            "copy"
        ),
        "stop it here; or, to have it here instead: mobility release web1",
        "bad",
    ),
    "lost, and the newer copy has stopped": (
        made(jail=dark(ownership="lost"), ownership={"reason": "10.0.0.2 has claimed it: this is the older copy"}),
        (
            "web1 runs, but it is owned elsewhere: 10.0.0.2 has claimed it; this is the older copy; no other host is seen to "
            "announce it now"
        ),
        "stop it here; or, to have it here instead: mobility release web1",
        "bad",
    ),
    "lost, and ExaBGP is away": (
        made(
            jail=dark(ownership="lost"), ownership={"reason": "10.0.0.2 has claimed it: this is the older"}, host=AWAY
        ),
        "web1 runs, but it is owned elsewhere: 10.0.0.2 has claimed it; this is the older copy",
        "stop it here; or, to have it here instead: mobility release web1",
        "bad",
    ),
    "conflict": (
        made(jail=dark(ownership="conflict"), ownership={"reason": "198.51.100.7/32 is another jail's, on 10.0.0.2"}),
        "web1 runs, and is in conflict: 198.51.100.7/32 is another jail's, on 10.0.0.2",
        "give one of the two another address",
        "bad",
    ),
    "conflict over one address of two": (
        made(
            jail=jail(
                ownership="conflict",
                routes={"198.51.100.7": {"spine": "not announced"}, "2001:db8:7::7": {"spine": "announced"}},
            ),
            ownership={"reason": "198.51.100.7/32 is another jail's, on 10.0.0.2"},
        ),
        (
            "web1 runs, and is in conflict, and is announced in part only (2001:db8:7::7): "
            "198.51.100.7/32 is another jail's, on 10.0.0.2"
        ),
        "give one of the two another address",
        "bad",
    ),
    "frozen": (
        made(
            jail=dark(ownership="frozen", frozen=True),
            ownership={"reason": "it has moved 5 times within 180 s and is frozen", "frozen_at": NOW - 9},
        ),
        "web1 runs, and it has moved 5 times within 180 s and is frozen",
        "mobility history web1; then: mobility release web1",
        "bad",
    ),
    "frozen, and it is this host's": (
        made(jail=jail(frozen=True), ownership={"frozen_at": NOW - 9, "moves": 5}),
        "web1 runs here and is announced to spine; it has moved too often and is frozen, so no other host would claim it",
        "mobility release web1",
        "held",
    ),
    "drained by name": (
        made(jail=dark(), drain={"name": NOW - 60, "barred": "it is drained"}),
        "web1 runs, and is drained by name since 2026-11-21 15:59:00Z",
        "mobility undrain web1",
        "held",
    ),
    "drained with the host": (
        made(jail=dark(), drain={"host": NOW - 60, "barred": "this host is drained"}),
        "web1 runs, and this whole host is drained since 2026-11-21 15:59:00Z",
        "mobility undrain",
        "held",
    ),
    "drained with the host, and by name": (
        made(jail=dark(), drain={"host": NOW - 60, "name": NOW - 90, "barred": "this host is drained"}),
        "web1 runs, and this whole host is drained since 2026-11-21 15:58:30Z; and web1 is drained by name, too",
        "mobility undrain",
        "held",
    ),
    "drained until the next boot": (
        made(jail=dark(), drain={"until_boot": NOW - 60, "barred": "this host is drained"}),
        "web1 runs, and this whole host is drained since 2026-11-21 15:59:00Z, until the next boot",
        "mobility undrain --until-boot",
        "held",
    ),
    "being drained": (
        made(jail=jail(), drain={"host": NOW - 1, "leaving": True, "left": 3.2}),
        "web1 is being drained: it is announced with GRACEFUL_SHUTDOWN for 4 s more, then withdrawn",
        "nothing",
        "held",
    ),
    "announced in part": (
        made(
            jail=jail(
                announced=False,
                routes={
                    "198.51.100.7": {"spine": "held back: the peer does no RFC 8950"},
                    "2001:db8:7::7": {"spine": "announced"},
                },
            )
        ),
        (
            "web1 runs, and is announced in part only (2001:db8:7::7): 198.51.100.7 to spine: held back: the peer does "
            "no RFC 8950"
        ),
        "mobility doctor",
        "bad",
    ),
    "announced, and one peer lacks it": (
        made(jail=jail(routes=routes(spine="announced", spine2="no session: hold timer"))),
        "web1 runs here and is announced to spine, and not to spine2 (no session: hold timer)",
        "mobility doctor",
        "bad",
    ),
    "a peer that is not meant to have one family": (
        made(jail=jail(routes=routes(spine="announced", rs="left out: families has no IPv4"))),
        "web1 runs here and is announced to spine, as it should be",
        "nothing",
        "good",
    ),
    "ExaBGP away": (
        made(jail=waiting(routes=routes(spine="no bridge: ExaBGP does not run")), host=AWAY),
        (
            "web1 runs, and ExaBGP is not connected to the agent, so nobody can be told of it; what was announced stays with "
            "the routers for bgp.graceful_restart"
        ),
        "service mobility_exabgp status; its log",
        "bad",
    ),
    "the agent has just restarted, and ExaBGP is not back yet": (
        made(jail=waiting(ownership="waiting"), host=AWAY | {"since": NOW - 2}),
        (
            "web1 runs, and ExaBGP is not connected to the agent (the agent was started 2 s ago), so nobody can be told of it; "
            "what was announced stays with the routers for bgp.graceful_restart"
        ),
        "service mobility_exabgp status; its log",
        "bad",
    ),
    "all sessions down": (
        made(jail=waiting(routes=routes(spine="no session: hold timer expired")), host=DOWN),
        "web1 runs, and no BGP session is up: spine, spine2 down since 2026-11-21 15:59:30Z (hold timer expired)",
        "mobility doctor",
        "bad",
    ),
    "held back": (
        made(jail=waiting(routes=routes(spine="held back: the peer does no RFC 8950"))),
        "web1 runs, and is not announced: 198.51.100.7 to spine: held back: the peer does no RFC 8950",
        "mobility doctor",
        "bad",
    ),
    "refused": (
        made(jail=waiting(routes=routes(spine="refused: bgp.max_announcements = 1 are announced"))),
        "web1 runs, and is not announced: 198.51.100.7 to spine: refused: bgp.max_announcements = 1 are announced",
        "mobility plan web1; then /var/log/mobility.log",
        "bad",
    ),
    "on its way": (
        made(jail=waiting(routes=routes(spine="sending"))),
        "web1 runs, and its routes are on their way to ExaBGP: 198.51.100.7 to spine: sending",
        "nothing",
        "held",
    ),
    "ExaBGP hangs": (
        made(jail=waiting(routes=routes(spine="sending: no answer from ExaBGP for 20 s"))),
        "web1 runs, and ExaBGP hangs: 198.51.100.7 to spine: sending: no answer from ExaBGP for 20 s",
        "service mobility_exabgp restart: meanwhile the routers keep its routes for bgp.graceful_restart; its log",
        "bad",
    ),
    "waits for the fabric": (
        made(jail=dark(ownership="waiting")),
        "web1 runs, and waits for the fabric to tell who holds it (its end-of-RIB, or ownership.learn_for seconds)",
        "nothing",
        "held",
    ),
    "failover: withdrawn": (
        made(jail=dark(ownership=""), failover=GROUP),
        (
            "web1 runs, and goes with failover lan, which announces nothing here: BACKUP, and the other node's preferred path "
            "is seen"
        ),
        "nothing while the other node has it; else: mobility status",
        "held",
    ),
    "failover: backup": (
        made(jail=jail(ownership=""), failover=GROUP | {"announced": True, "stance": "less", "reason": "BACKUP"}),
        "web1 runs here and is announced to spine, as the less preferred one: failover lan: BACKUP",
        "nothing while the other node is preferred",
        "held",
    ),
    "failover: master": (
        made(jail=jail(ownership=""), failover=GROUP | {"announced": True, "stance": "preferred", "reason": "MASTER"}),
        "web1 runs here and is announced to spine, as it should be",
        "nothing",
        "good",
    ),
    "handed over": (
        made(jail=jail(handing=True)),
        "web1 runs here and is announced to spine, and is being handed over",
        "stop it here; where it goes: mobility expect web1",
        "held",
    ),
    "a peer that does not compare MED": (
        made(jail=jail(shown_older=[{"peer": "spine", "host": "10.0.0.2", "sequence": 3}])),
        (
            "web1 runs here and is announced to spine, but spine goes on showing the older claim of 10.0.0.2: it does not "
            "compare MED"
        ),
        "mobility doctor; see deploy/fabric",
        "bad",
    ),
    "something is missing on the host": (
        made(jail=jail(), plan={"commands": [["route", "-n", "add"]]}),
        "web1 runs here and is announced to spine, but 1 command is missing on this host",
        "mobility plan web1",
        "bad",
    ),
    "its root has changed its network": (
        made(jail=jail(), observed={"inside": "wrong"}),
        "web1 runs here and is announced to spine, but its network was changed inside; it is mended at the next look inside",
        "nothing",
        "held",
    ),
    "the agent has just restarted": (
        made(jail=stopped(reason="not looked at yet"), host={"since": NOW - 1.5}),
        "the agent was started 2 s ago and has not looked at web1 yet; what was announced before stands",
        "wait a moment: mobility explain web1",
        "held",
    ),
    "the first look is not over": (
        made(jail=stopped(), host={"looked": False, "since": NOW - 3}),
        "the agent was started 3 s ago and has not looked at web1 yet; what was announced before stands",
        "wait a moment: mobility explain web1",
        "held",
    ),
    "the host can not be looked at": (
        made(jail=jail(), host={"trouble": "jls: killed after 10 s"}),
        "this host can not be looked at, so nothing about web1 is changed: jls: killed after 10 s",
        "mobility doctor",
        "bad",
    ),
    "anycast": (
        made(jail=jail(ownership="", sequence=None), ownership={"anycast": True}),
        "web1 runs here and is announced to spine, as it should be",
        "nothing",
        "good",
    ),
}


@pytest.mark.parametrize("state", STATES)
def test_the_sentence_is_the_right_one_in_each_state(state: str) -> None:
    described, sentence, then, level = STATES[state]
    assert verdict(described, NOW) == Verdict(sentence, then, level)


@pytest.mark.parametrize("state", STATES)
def test_every_story_can_be_told(state: str) -> None:
    described, sentence, then, _ = STATES[state]
    lines = story(described, NOW)
    assert lines[:2] == [f"{sentence}.", f"Next: {then}."]
    narrow = story(described, NOW, 60, Palette(coloured=True))
    assert all(len(line) <= 60 + len("\x1b[31m\x1b[0m") for line in narrow)
    assert {line.split()[0] for line in lines[2:] if not line.startswith(" ")} <= {
        *("config", "desired", "observed", "health", "ownership", "damping"),
        *("failover", "drain", "routes", "sessions", "events"),
    }


def test_the_whole_story_of_a_jail_that_is_well() -> None:
    described = made(jail=jail(checks=[check()]), ownership={"shown": [CLAIM | {"sequence": 3, "same": False}]})
    assert story(described, NOW) == [
        "web1 runs here and is announced to spine, as it should be.",
        "Next: nothing.",
        "config     /usr/local/etc/mobility/jails.d/web1.toml; jail.conf knows it, too",
        "           grants 198.51.100.7 2001:db8:7::7",
        "desired    announced",
        "observed   runs as jid 5, since 2026-11-21 15:50:00Z, with a vnet of its own; /jails/web1",
        "           last hook: poststart, 10m00 ago",
        "           link mob-web1: up",
        "           route to 198.51.100.7: by fe80::2%mob-web1 on mob-web1",
        "           route to 2001:db8:7::7: by fe80::2%mob-web1 on mob-web1",
        "           inside: as it should be",
        "health     check reach 198.51.100.7: passes: answered 7s ago, every 30 s, 0 of 12 failed",
        "ownership  held: this host, 10.0.0.1, has claimed it with sequence 29921279",
        "           10.0.0.2 announces another jail there: 198.51.100.7/32, sequence 3",
        "damping    penalty 0; suppressed at 6000, announced again at 3000",
        "failover   goes with none",
        "drain      not drained",
        "routes     198.51.100.7: spine announced",
        "           2001:db8:7::7: spine announced",
        "sessions   spine up since 2026-11-21 15:00:00Z",
        "events     2026-11-21 15:59:00Z  announced",
    ]


def test_the_story_of_one_that_is_not() -> None:
    """What each part says where something is the matter with it."""
    described = made(
        jail=dark(ownership="lost", checks=[]),
        config={
            "source": "/etc/jail.conf",
            "services": ["64:ff9b::/96"],
            "group": "dns",
            "others": ["db1"],
            "refused": ["it asks in its own files: 192.0.2.9 is not granted"],
            "problem": "web1.toml: is no TOML",
        },
        observed={
            "link_up": False,
            "adopted": True,
            "inside": "wrong",
            "blind": "jexec: timed out",
            "routes": {"198.51.100.7": [], "2001:db8:7::7": [{"gateway": "::1", "interface": "lo0", "reject": True}]},
        },
        plan={"commands": [["ifconfig"], ["route"]]},
        ownership={
            "reason": "10.0.0.2 has claimed it",
            "owner": "10.0.0.2",
            "highest": 30,
            "shown": [CLAIM],
            "moves": 2,
        },
        damping={"suppressed": True, "since": NOW - 60, "until": NOW + 300, "penalty": 6000.0},
        failover=None,
        drain={"host": NOW - 60, "leaving": True, "left": 2.0},
        host=DOWN,
    )
    lines = [line[11:] for line in story(described, NOW)[2:]]
    for part in (
        "/etc/jail.conf",
        "services 64:ff9b::/96",
        "group dns",
        "shares an address with db1: only one of them can run here at a time",
        "refused: it asks in its own files: 192.0.2.9 is not granted",
        "web1.toml: is no TOML",
        "link mob-web1 (its manager made it): down",
        "route to 198.51.100.7: none in the kernel",
        "route to 2001:db8:7::7: rejected",
        "inside: not as it should be",
        "can not be looked into: jexec: timed out",
        "2 commands are missing: mobility plan web1",
        "no check runs",
        "lost: 10.0.0.2 has claimed it",
        "last claimed by 10.0.0.2, with sequence 30",
        "10.0.0.2 announces it: 198.51.100.7/32, sequence 30",
        "has changed hands 2 times lately",
        "suppressed since 2026-11-21 15:59:00Z, for 5 min more if it stays up",
        "the whole host, since 2026-11-21 15:59:00Z",
        "GRACEFUL_SHUTDOWN for 2 s more",
        "spine down since 2026-11-21 15:59:30Z: hold timer expired",
    ):
        assert part in lines


def test_a_failover_is_told_with_carp() -> None:
    lines = story(made(jail=dark(ownership=""), failover=GROUP), NOW)
    assert "failover   lan: withdrawn (1@ix1 BACKUP): BACKUP, and the other node's preferred path is seen" in lines
    assert "           pfsync: in step" in lines
    assert "           net.inet.carp.demotion is 240, of which 240 are the agent's" in lines
    assert "           demoted: this host is drained" in lines
    assert "ownership  nobody owns it: it goes with a failover, and both nodes announce it" in lines


def test_a_jail_without_a_vnet_has_its_addresses_on_the_host() -> None:
    described = made(
        jail=jail(), observed={"vnet": False, "link": "", "interfaces": {"198.51.100.7": ["lo1"], "2001:db8:7::7": []}}
    )
    lines = story(described, NOW)
    assert "           198.51.100.7: on lo1" in lines
    assert "           2001:db8:7::7: on no interface of the host" in lines
    assert not [line for line in lines if "link mob" in line or "route to" in line]


def test_what_others_say_is_no_escape() -> None:
    bad = "\x1b[2J\r\nfine"
    described = made(jail=dark(reason=bad, checks=[check(ready=False, said=bad)]), config={"refused": [bad]})
    assert all(line.isprintable() for line in story(described, NOW))
