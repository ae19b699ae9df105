"""`mobility explain NAME`: one jail's whole story, and the reason for its present state in one sentence. Pure.

`described` is the agent's answer (mobility.answers, `explain`). `verdict` looks for the first cause: what is further down the
way from jail(8) to the routers is told only where all before it is as it should be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mobility.terminal.status import check_lines
from mobility.terminal.text import PLAIN, Palette, ago, named, number, printable, utc, words, wrapped

Described = Mapping[str, Any]

LABEL = 11
"""Columns of the label before each part of the story."""
NOT_YET = "not looked at yet"
"""What the agent says of a jail that it has not come to."""
_ENOUGH = "nothing"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a jail is at what it is at: one sentence, what to do next, and whether that is as it should be.

    `level` is a name of a colour: good, held (kept back, for a reason that is known), bad, faint (there is nothing to be).
    """

    sentence: str
    then: str
    level: str


# -- the sentence


def verdict(described: Described, now: float) -> Verdict:
    """Return the reason for a jail's present state, in plain words, and what to do next."""
    name, jail, host = described["name"], described["jail"], described["host"]
    if not described["known"]:
        return _unknown(described)
    if host["trouble"]:
        return Verdict(
            f"this host can not be looked at, so nothing about {name} is changed: {host['trouble']}",
            "mobility doctor",
            "bad",
        )
    if not host["looked"] or jail["reason"] == NOT_YET:
        return Verdict(
            f"the agent was started {words(now - host['since'])} ago and has not looked at {name} yet; what was announced "
            "before stands",
            f"wait a moment: mobility explain {name}",
            "held",
        )
    return _running(described, now) if described["observed"]["running"] else _away(described, now)


def _unknown(described: Described) -> Verdict:
    name, like = described["name"], described["like"]
    grant = f'write addresses = ["..."] into {described["host"]["jails_d"]}/{name}.toml'
    return Verdict(
        f"{name} is not known here: no file grants it an address, and no jail of that name runs",
        f"{like} Else {grant}" if like else f"{grant}; mobility check says what counts",
        "bad",
    )


def _away(described: Described, now: float) -> Verdict:
    """Say why a jail that does not run is as it is."""
    name, config, seen = described["name"], described["config"], described["observed"]
    if described["desired"]["stand"] == "paired":
        return Verdict(
            f"{name} is about to start: its prestart hook came {ago(seen['hook_at'], now)} ago, its link is made, and it is "
            "announced when it has started",
            _ENOUGH,
            "held",
        )
    if described["problem"]:
        return Verdict(f"{name} does not run, and {_bare(described['problem'], name)}", _look_closer(name), "bad")
    if config["problem"]:
        return Verdict(
            f"{name} does not run, and its start would be refused: {config['problem']}",
            "mend that: mobility check",
            "bad",
        )
    if refusal := _refusal(described):
        return Verdict(
            f"{name} does not run, because its last start was refused at {utc(refusal['at'])}: "
            f"{_bare(refusal['detail'], name)}",
            f"mend that, then start it: {_start(described)}",
            "bad",
        )
    if not config["addresses"]:
        why = "; ".join(config["refused"]) or "no file grants it an address"
        return Verdict(f"{name} does not run, and would get no network: {why}", "mend that: mobility check", "bad")
    if config["held_by"]:
        return Verdict(
            f"{name} does not run, and can not be started while {named(config['held_by'])} runs here: they share an address",
            f"stop {config['held_by'][0]}, or take the address out of one of the two files",
            "held",
        )
    other, own = _newest(described), described["ownership"]
    if own["frozen_at"] and own["owner"] != described["host"]["router_id"]:
        where = f"; {other['host']} announces it" if other is not None else ""
        return Verdict(
            f"{name} does not run here{where}; it has moved too often and is "
            "frozen, so it would not be announced if it were started here",
            f"{_ENOUGH} while it runs elsewhere; to have it here: mobility release {name}",
            "held",
        )
    if other is not None:
        return Verdict(
            f"{name} does not run here; {other['host']} announces it, with sequence {other['sequence']}"
            + (", and hands it over" if other["handing"] else ""),
            f"{_ENOUGH}; to have it here: mobility handoff {name} there, mobility expect {name} here, then start it",
            "faint",
        )
    unseen = "" if described["host"]["heard"] else ", as far as is known: the fabric has not told yet what it has"
    return Verdict(
        f"{name} does not run here, and no other host is seen to announce it{unseen}",
        f"start it: {_start(described)}",
        "faint",
    )


def _running(described: Described, now: float) -> Verdict:
    """Say why a jail that runs is as it is: the first thing on its way that is not as it should be."""
    name, jail, config, seen = (described[key] for key in ("name", "jail", "config", "observed"))
    if not config["addresses"]:
        why = config["problem"] or "; ".join(config["refused"]) or "no file does"
        grant = (
            f'write addresses = ["..."] into {described["host"]["jails_d"]}/{name}.toml, then: service mobility reload'
        )
        return Verdict(f"{name} runs (jid {seen['jid']}), but it is not granted any address: {why}", grant, "bad")
    for each in _IN_ORDER:
        if found := each(described, now):
            return found
    if not jail["announced"]:
        return Verdict(f"{name} runs, and is not announced: {jail['reason']}", _look_closer(name), "bad")
    return _announced(described)


def _drained(described: Described, _now: float) -> Verdict | None:
    name, drain = described["name"], described["drain"]
    if drain["barred"]:
        since = min(at for at in (drain["host"], drain["until_boot"], drain["name"]) if at is not None)
        both = drain["name"] is not None and (drain["host"] or drain["until_boot"])
        how = "mobility undrain --until-boot" if drain["until_boot"] else "mobility undrain"
        if not (drain["host"] or drain["until_boot"]):
            return Verdict(
                f"{name} runs, and is drained by name since {utc(since)}", f"mobility undrain {name}", "held"
            )
        also = f"; and {name} is drained by name, too" if both else ""
        until = ", until the next boot" if drain["until_boot"] else ""
        return Verdict(f"{name} runs, and this whole host is drained since {utc(since)}{until}{also}", how, "held")
    if drain["leaving"]:
        return Verdict(
            f"{name} is being drained: it is announced with GRACEFUL_SHUTDOWN for {words(drain['left'])} more, then "
            "withdrawn",
            _ENOUGH,
            "held",
        )
    return None


def _hooked(described: Described, now: float) -> Verdict | None:
    """Say that a jail is on its way up or down, by what its hooks have told."""
    name, seen, stand = described["name"], described["observed"], described["desired"]["stand"]
    when = f"its {seen['hook']} hook came {ago(seen['hook_at'], now)} ago"
    if stand == "closing":
        return Verdict(f"{name} is stopping: {when}, and it is withdrawn", _ENOUGH, "held")
    if stand == "paired" or described["desired"]["reason"].startswith("is starting"):
        manager = described["config"]["manager"]
        status = f"mobility hooks status {manager}" if manager else "is the poststart line in its jail.conf?"
        return Verdict(
            f"{name} is starting: {when}, and it is announced when its poststart hook comes",
            f"{_ENOUGH}; if its start is over and this stays: {status}",
            "held",
        )
    return None


def _broken(described: Described, _now: float) -> Verdict | None:
    name, config = described["name"], described["config"]
    if problem := described["problem"] or (
        described["desired"]["stand"] == "absent" and described["desired"]["reason"]
    ):
        then = "mend that: mobility check" if config["held_by"] else _look_closer(name)
        return Verdict(f"{name} runs, and {_bare(problem, name)}", then, "bad")
    if config["problem"]:
        return Verdict(
            f"{name} runs with what it had, because its file is broken: {config['problem']}",
            "mend that: mobility check",
            "bad",
        )
    return None


def _unpreferred(described: Described, _now: float) -> Verdict | None:
    name, group = described["name"], described["failover"]
    if group is None or group["announced"]:
        return None
    return Verdict(
        f"{name} runs, and goes with failover {group['name']}, which announces nothing here: {group['reason']}",
        f"{_ENOUGH} while the other node has it; else: mobility status",
        "held",
    )


def _unhealthy(described: Described, now: float) -> Verdict | None:
    name = described["name"]
    waits = [check for check in described["jail"]["checks"] if not check["ready"]]
    if not waits:
        return None
    # one that said something tells more than one that waits for its first answer
    worst = next((check for check in waits if check["at"] is not None), waits[0])
    more = f", and {len(waits) - 1} more" if len(waits) > 1 else ""
    if worst["at"] is None:
        return Verdict(
            f"{name} runs, and waits for the first answer to its check {worst['check']}{more}", _ENOUGH, "held"
        )
    streak = f" ({worst['streak']} good of {worst['rise']} in a row)" if worst["streak"] else ""
    return Verdict(
        f"{name} runs, and is not ready: its check {worst['check']} says {worst['said']}{streak}, "
        f"{ago(worst['at'], now)} ago{more}",
        _mend_check(name, worst),
        "bad",
    )


def _mend_check(name: str, check: Mapping[str, Any]) -> str:
    looks = {
        "reach": f"jexec {name} ifconfig, and the jail's own firewall",
        "exec": f"run it: jexec -l {name} {check['check'].removeprefix('exec ')}",
    }
    return looks.get(check["kind"], f"does it listen there? jexec {name} sockstat -l")


def _flapped(described: Described, now: float) -> Verdict | None:
    name, damping = described["name"], described["damping"]
    if not damping["suppressed"]:
        return None
    return Verdict(
        f"{name} runs, and is suppressed: its routes came and went too often; it is announced again at "
        f"{utc(damping['until'])}, in {words(damping['until'] - now)}, if it stays up",
        f"find out why (mobility history {name}); at once: {damping['release']}",
        "held",
    )


def _unconnected(described: Described, now: float) -> Verdict | None:
    """Say that nobody can be told anything: no bridge, or no session."""
    name, host = described["name"], described["host"]
    stands = "; what was announced stays with the routers for bgp.graceful_restart"
    if not host["bridge"]:
        young = now - host["since"]
        fresh = f" (the agent was started {words(young)} ago)" if young < 60 else ""
        return Verdict(
            f"{name} runs, and ExaBGP is not connected to the agent{fresh}, so nobody can be told of it{stands}",
            "service mobility_exabgp status; its log",
            "bad",
        )
    if host["sessions"] and not any(session["state"] == "up" for session in host["sessions"]):
        down = host["sessions"][0]
        why = f" ({down['reason']})" if down["reason"] else ""
        peers = named(session["peer"] for session in host["sessions"])
        since = f" since {utc(down['since'])}" if down["since"] else ""
        return Verdict(
            f"{name} runs, and no BGP session is up: {peers} {down['state']}{since}{why}", "mobility doctor", "bad"
        )
    return None


def _unowned(described: Described, _now: float) -> Verdict | None:
    name, own = described["name"], described["ownership"]
    kind, reason = own["kind"], own["reason"]
    if described["failover"] is not None or kind in ("", "held", "waiting") or own["anycast"]:
        return None
    if kind == "lost":
        host = described["host"]
        told = host["bridge"] and host["heard"] and any(session["state"] == "up" for session in host["sessions"])
        gone = "; no other host is seen to announce it now" if told and not _newest(described) else ""
        return Verdict(
            f"{name} runs, but it is owned elsewhere: {reason.partition(': this is')[0]}; this is the older copy{gone}",
            f"stop it here; or, to have it here instead: mobility release {name}",
            "bad",
        )
    partly = f", and is {found}" if (found := _partly(described)) else ""
    if kind == "conflict":
        return Verdict(
            f"{name} runs, and is in conflict{partly}: {reason}", "give one of the two another address", "bad"
        )
    return Verdict(
        f"{name} runs, and {reason}{partly}", f"mobility history {name}; then: mobility release {name}", "bad"
    )


def _unheard(described: Described, _now: float) -> Verdict | None:
    name, own = described["name"], described["ownership"]
    if described["failover"] is not None or own["kind"] != "waiting" or own["anycast"]:
        return None
    return Verdict(
        f"{name} runs, and waits for the fabric to tell who holds it (its end-of-RIB, or ownership.learn_for seconds)",
        _ENOUGH,
        "held",
    )


def _untold(described: Described, _now: float) -> Verdict | None:
    """Say that routes are wanted, and no peer has them."""
    name, jail, routes = described["name"], described["jail"], described["jail"]["routes"]
    if not jail["ready"] or not routes:
        return None
    missing = {text: peers for text, peers in routes.items() if "announced" not in peers.values()}
    if not missing:
        return None
    text, peers = next(iter(missing.items()))
    at, state = next(iter(peers.items()), ("no peer", "is configured"))
    how = _partly(described) or "not announced"
    if "no answer from ExaBGP" in state:
        then = (
            "service mobility_exabgp restart: meanwhile the routers keep its routes for bgp.graceful_restart; its log"
        )
        return Verdict(f"{name} runs, and ExaBGP hangs: {text} to {at}: {state}", then, "bad")
    if state == "sending" or (state.startswith("sending") and not jail["announced"]):
        return Verdict(
            f"{name} runs, and its routes are on their way to ExaBGP: {text} to {at}: {state}", _ENOUGH, "held"
        )
    then = "mobility doctor" if "no session" in state or "held back" in state else _look_closer(name)
    if state == "not announced":
        return Verdict(f"{name} runs, and is {how}: {jail['reason'] or state}", then, "bad")
    return Verdict(f"{name} runs, and is {how}: {text} to {at}: {state}", then, "bad")


def _missing(described: Described) -> str:
    count = len(described["plan"]["commands"])
    return f"{number(count, 'command')} {'is' if count == 1 else 'are'} missing"


def _partly(described: Described) -> str:
    """Return what of a jail is announced, where that is a part of it."""
    routes = described["jail"]["routes"]
    told = [text for text, peers in routes.items() if "announced" in peers.values()]
    return f"announced in part only ({named(told)})" if told and len(told) < len(routes) else ""


def _announced(described: Described) -> Verdict:
    """Say that a jail is announced, and what there is to know beside."""
    name, jail, own, seen = (described[key] for key in ("name", "jail", "ownership", "observed"))
    peers = {peer for several in jail["routes"].values() for peer, state in several.items() if state == "announced"}
    whole = f"{name} runs here and is announced to {named(sorted(peers))}"
    lacking = {
        f"{peer} ({state})"
        for several in jail["routes"].values()
        for peer, state in several.items()
        if state != "announced" and not state.startswith("left out")
    }
    group = described["failover"]
    if described["plan"]["commands"]:
        return Verdict(
            f"{whole}, but {_missing(described)} on this host",
            f"mobility plan {name}",
            "bad",
        )
    if lacking:
        return Verdict(f"{whole}, and not to {named(sorted(lacking), 2)}", "mobility doctor", "bad")
    if group is not None and group["stance"] == "less":
        return Verdict(
            f"{whole}, as the less preferred one: failover {group['name']}: {group['reason']}",
            f"{_ENOUGH} while the other node is preferred",
            "held",
        )
    if own["handing"]:
        return Verdict(
            f"{whole}, and is being handed over", f"stop it here; where it goes: mobility expect {name}", "held"
        )
    if jail["shown_older"]:
        older = jail["shown_older"][0]
        return Verdict(
            f"{whole}, but {older['peer']} goes on showing the older claim of {older['host']}: it does not compare MED",
            "mobility doctor; see deploy/fabric",
            "bad",
        )
    if own["frozen_at"]:
        return Verdict(
            f"{whole}; it has moved too often and is frozen, so no other host would claim it",
            f"mobility release {name}",
            "held",
        )
    if seen["inside"] == "wrong":
        return Verdict(
            f"{whole}, but its network was changed inside; it is mended at the next look inside", _ENOUGH, "held"
        )
    if described["config"]["refused"]:
        refused = "; ".join(described["config"]["refused"])
        return Verdict(f"{whole}; not all that it asks for is granted: {refused}", "mobility check", "held")
    return Verdict(f"{whole}, as it should be", _ENOUGH, "good")


def _refusal(described: Described) -> Mapping[str, Any] | None:
    """Return what went wrong at the last start of a jail that does not run; None where it went well, or was long ago."""
    found = None
    for event in described["events"]:
        if event["what"] == "problem":
            found = event
        elif event["what"] in ("prestart", "announced", "release"):
            found = None
    return found


def _newest(described: Described) -> Mapping[str, Any] | None:
    """Return the newest claim of another host on this very jail that the fabric shows."""
    claims = [each for each in described["ownership"]["shown"] if each["same"] and not each["ours"]]
    return max(claims, key=lambda each: int(each["sequence"]), default=None)


def _start(described: Described) -> str:
    name, manager = described["name"], described["config"]["manager"]
    if manager == "bastille":
        return f"bastille start {name}"
    if manager == "iocage":
        return f"iocage start {name.removeprefix('ioc-')}"
    return f"jail -c {name}"


def _look_closer(name: str) -> str:
    return f"mobility plan {name}; then /var/log/mobility.log"


def _bare(problem: str, name: str) -> str:
    """Return a problem without the jail's name before it, where the sentence has that already."""
    return problem.removeprefix(f"jail {name}: ").removeprefix(f"jail {name} ")


_IN_ORDER = (
    _drained,
    _hooked,
    _broken,
    _unpreferred,
    _unhealthy,
    _flapped,
    _unowned,
    _unconnected,
    _unheard,
    _untold,
)


# -- the story


def story(described: Described, now: float, width: int | None = None, palette: Palette = PLAIN) -> list[str]:
    """Return all lines: the sentence, what to do next, then each part of what is known."""
    found = verdict(described, now)
    paint = getattr(palette, found.level)
    lines = [paint(line) for line in _broken_at(printable(found.sentence) + ".", width)]
    lines += _broken_at(f"Next: {printable(found.then)}.", width)
    for label, parts in _parts(described, now):
        lines += _labelled(label, [printable(part) for part in parts], width, palette)
    return lines


def _broken_at(text: str, width: int | None) -> list[str]:
    return [text] if width is None else wrapped(text, width)


def _labelled(label: str, parts: list[str], width: int | None, palette: Palette) -> Iterator[str]:
    room = None if width is None else max(20, width - LABEL)
    texts = [line for part in parts for line in _broken_at(part, room)]
    for at, text in enumerate(texts):
        head = palette.head(label) + " " * (LABEL - len(label)) if at == 0 else " " * LABEL
        yield f"{head}{text}".rstrip()


def _parts(described: Described, now: float) -> Iterator[tuple[str, list[str]]]:
    """Yield each part of the story: its label, and what there is to say."""
    if not described["known"]:
        yield "events", _events(described)
        return
    yield "config", _config(described)
    desired = described["desired"]
    yield "desired", [desired["stand"] + (f": {desired['reason']}" if desired["reason"] else "")]
    yield "observed", _observed(described, now)
    checks = list(check_lines(described["jail"]["checks"], now))
    yield "health", checks or ["no check runs" + ("" if described["observed"]["running"] else ": it does not run")]
    yield "ownership", _ownership(described)
    yield "damping", _damping(described, now)
    yield "failover", _failover(described)
    yield "drain", _drain(described)
    yield "routes", _routes(described)
    yield "sessions", _sessions(described)
    yield "events", _events(described)


def _config(described: Described) -> list[str]:
    config = described["config"]
    if not config["addresses"]:
        found = ["grants nothing" + (f"; {config['manager']} knows it" if config["manager"] else "")]
    else:
        source = config["source"] if config["source"] != "remembered" else "remembered, because its file is broken"
        knows = f"; {config['manager']} knows it, too" if config["manager"] and ".toml" in source else ""
        found = [f"{source}{knows}", f"grants {' '.join(config['addresses'])}"]
        if config["services"]:
            found.append(f"services {' '.join(config['services'])}")
        if config["group"]:
            found.append(f"group {config['group']}")
        if config["others"]:
            found.append(f"shares an address with {named(config['others'])}: only one of them can run here at a time")
    return [*found, *(f"refused: {text}" for text in config["refused"]), *filter(None, [config["problem"]])]


def _observed(described: Described, now: float) -> list[str]:
    seen, plan = described["observed"], described["plan"]
    found = ["does not run"]
    if seen["running"]:
        since = f", since {utc(seen['seen_since'])}" if seen["seen_since"] else ""
        own = "a vnet of its own" if seen["vnet"] else "no vnet of its own"
        found = [f"runs as jid {seen['jid']}{since}, with {own}; {seen['path']}"]
    if seen["hook"]:
        found.append(f"last hook: {seen['hook']}, {ago(seen['hook_at'], now)} ago")
    if seen["link"] and (seen["running"] or seen["link_there"]):
        state = {True: "up", False: "down", None: "not there"}[seen["link_up"]]
        found.append(f"link {seen['link']}{' (its manager made it)' if seen['adopted'] else ''}: {state}")
    for text, interfaces in seen["interfaces"].items():
        found.append(f"{text}: on {', '.join(interfaces) or 'no interface of the host'}")
    for text, routes in seen["routes"].items():
        if seen["interfaces"]:
            continue
        several = "; ".join(
            "rejected" if each["reject"] else f"by {each['gateway']} on {each['interface']}" for each in routes
        )
        if several or seen["running"]:
            found.append(f"route to {text}: {several or 'none in the kernel'}")
    if seen["inside"]:
        found.append({"right": "inside: as it should be", "wrong": "inside: not as it should be"}[seen["inside"]])
    if seen["blind"]:
        found.append(f"can not be looked into: {seen['blind']}")
    if plan["commands"]:
        found.append(f"{_missing(described)}: mobility plan {described['name']}")
    return found


def _ownership(described: Described) -> list[str]:
    own, host = described["ownership"], described["host"]
    if described["failover"] is not None:
        return ["nobody owns it: it goes with a failover, and both nodes announce it"]
    if own["anycast"]:
        return ["nobody owns it: it is anycast"]
    if own["kind"] == "held" and own["sequence"]:
        found = [f"held: this host, {host['router_id']}, has claimed it with sequence {own['sequence']}"]
    elif own["reason"]:
        found = [f"{own['kind']}: {own['reason']}"]
    elif own["kind"] == "held":
        found = ["no other host has claimed it; this host claims it when it announces it"]
    else:
        found = ["this host claims it only while it runs here"]
    if own["owner"] and own["owner"] != host["router_id"]:
        found.append(f"last claimed by {own['owner']}, with sequence {own['highest']}")
    for claim in own["shown"]:
        if not claim["ours"]:
            what = "announces it" if claim["same"] else "announces another jail there"
            handing = ", and hands it over" if claim["handing"] else ""
            found.append(f"{claim['host']} {what}: {claim['prefix']}, sequence {claim['sequence']}{handing}")
    if own["handing"]:
        found.append("is being handed over")
    if own["frozen_at"]:
        found.append(f"frozen since {utc(own['frozen_at'])}, after {number(own['moves'], 'move')}")
    elif own["moves"]:
        found.append(f"has changed hands {number(own['moves'], 'time')} lately")
    return found


def _damping(described: Described, now: float) -> list[str]:
    damping = described["damping"]
    if not damping["enabled"]:
        return ["is switched off (damping.enabled)"]
    figure = (
        f"penalty {damping['penalty']:.0f}; suppressed at {damping['suppress']}, announced again at {damping['reuse']}"
    )
    if not damping["suppressed"]:
        return [figure]
    return [
        figure,
        f"suppressed since {utc(damping['since'])}, for {words(damping['until'] - now)} more if it stays up",
    ]


def _failover(described: Described) -> list[str]:
    group = described["failover"]
    if group is None:
        return ["goes with none"]
    vhids = ", ".join(f"{vhid} {state or 'not there'}" for vhid, state in group["vhids"].items())
    found = [f"{group['name']}: {group['stance'] or 'undecided'} ({vhids}): {group['reason']}"]
    pfsync = group["pfsync"]
    if pfsync is not None:
        found.append(f"pfsync: { ({True: 'in step', False: 'not in step', None: 'off'}[pfsync['syncok']]) }")
    demotion = group["demotion"]
    if demotion["total"] is not None:
        found.append(f"net.inet.carp.demotion is {demotion['total']}, of which {demotion['ours']} are the agent's")
    if demotion["reason"]:
        found.append(f"demoted: {demotion['reason']}")
    return [*found, *group["problems"]]


def _drain(described: Described) -> list[str]:
    drain, name = described["drain"], described["name"]
    whose = (
        ("the whole host", drain["host"]),
        ("the whole host, until the next boot", drain["until_boot"]),
        (name, drain["name"]),
    )
    found = [f"{what}, since {utc(at)}" for what, at in whose if at is not None]
    if drain["leaving"]:
        found.append(f"GRACEFUL_SHUTDOWN for {words(drain['left'])} more")
    return found or ["not drained"]


def _routes(described: Described) -> list[str]:
    routes = described["jail"]["routes"]
    return [
        f"{text}: {', '.join(f'{peer} {state}' for peer, state in peers.items()) or 'no peer is configured'}"
        for text, peers in routes.items()
    ] or ["none"]


def _sessions(described: Described) -> list[str]:
    host = described["host"]
    if not host["bridge"]:
        return ["ExaBGP is not connected"]
    return [
        f"{session['peer']} {session['state']}"
        + (f" since {utc(session['since'])}" if session["since"] else "")
        + (f": {session['reason']}" if session["reason"] and session["state"] != "up" else "")
        for session in host["sessions"]
    ] or ["no peer is configured"]


def _events(described: Described) -> list[str]:
    return [f"{utc(event['at'])}  {event['what']}  {event['detail']}".rstrip() for event in described["events"]] or [
        "none"
    ]
