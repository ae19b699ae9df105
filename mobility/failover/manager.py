"""Failover in the agent: looks at CARP and pfsync, has the policy decide, and does what it says.

What is decided is in `policy`, what of `net.inet.carp.demotion` is ours in `accounting`: both pure. Here are the looks, the
events, the one command that changes anything (`sysctl net.inet.carp.demotion=N`, which adds), what outlives the agent, and
the announcements of what lies behind the pair. Jails' own are their workers'.

An event of devd's is believed at once, for routes have to follow within milliseconds, and looked after at once: what a
look shows stands. A jail's root can make such events (see `watch`): once a look has shown something else, the vhid's
events only begin looks, for a while.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from mobility import announcement
from mobility.announcement import Announce
from mobility.bgp.grammar import prefix_text
from mobility.failover import accounting, policy, watch
from mobility.failover.accounting import Add, Doubt, Keep, Record
from mobility.failover.model import Seen, Vhid
from mobility.failover.policy import Decision, Drain, Fabric, Group, Role, Ruling, Stance
from mobility.network.host import Host, Trouble

if TYPE_CHECKING:
    from mobility.bgp.speaker import Speaker
    from mobility.config import Config
    from mobility.model import Prefix

log = logging.getLogger(__name__)

LOOK_EVERY = 1.0
"""Seconds between two looks: nobody tells of pfsync, or of a demotion."""
LOOK_APART = 0.05
"""Seconds between the beginnings of two looks at least: events are as many as a jail's root wishes."""
TICK = 0.01
"""Seconds past a deadline, so that it has passed on every clock when it is looked at."""
LOOKS = 3
"""Looks in a row while events come in between; the next ones are LOOK_APART later."""
DOUBTED_FOR = 60.0
"""Seconds for which a vhid's events are not believed before a look, after one that was not so."""
TURNS = 4
"""Turns of a vhid that are believed before a look has gone by without an event: CARP makes no more in that time."""
NEWS_APART = 0.2
"""Seconds between two decisions about what the fabric says, at least: it may say much, and nothing of it is that urgent."""
UNDECIDED = "waits for the first look at CARP"
MEMORY, RECORD = "failover", "demotion"
"""Under which names the store keeps what is remembered."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a jail goes with, and how it is to be announced; `ruling` is None before the first look."""

    group: Group
    ruling: Ruling | None

    @property
    def announced(self) -> bool:
        """Whether it is announced at all."""
        return self.ruling is not None and self.ruling.stance is not Stance.WITHDRAWN

    @property
    def reason(self) -> str:
        """Why it is not announced, or not as preferred; "" where it is."""
        if self.ruling is None:
            return f"failover {self.group.name}: {UNDECIDED}"
        if self.ruling.stance is Stance.PREFERRED:
            return ""
        return f"failover {self.group.name}: {self.ruling.stance}: {self.ruling.reason}"


@dataclass(frozen=True, slots=True)
class Ties:
    """What the agent knows of jails and drains, and a failover asks for."""

    announced: Callable[[Group], Iterable[str]] = lambda _: ()
    """The prefixes (as BGP writes them) of a group's jails that are announced here; else those that they may have."""
    jail_of: Callable[[str], str] = lambda _: ""
    """Which jail has been granted a prefix (as BGP writes it), "" where none has."""
    drained: Callable[[], tuple[Drain, str]] = lambda: (Drain.NO, "")
    """Whether the host is drained; and why nothing at all is to be announced any more, "" while that is not so."""
    heard: Callable[[], bool] = lambda: True
    """Whether the fabric has told what it has."""
    turned: Callable[[Collection[str]], None] = lambda _: None
    """Takes the groups whose stance has changed."""
    note: Callable[[str, str], None] = lambda _what, _detail: None
    """Takes a line of history."""
    changed: Callable[[str, str], None] = lambda _group, _stance: None
    """Counts a group's new stance."""


class Failover:
    """All groups of a host. The agent tells it of sessions and drains, and asks it how jails are announced."""

    def __init__(
        self,
        config: Config,
        host: Host,
        speaker: Speaker,
        *,
        boot: str = "",
        kept: Callable[[str], Any] = lambda _: None,
        keep: Callable[[str, Any], bool] = lambda _name, _value: True,
        ties: Ties = Ties(),  # frozen
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`boot` tells this boot from others; `keep` tells whether it could keep what it was given."""
        self._host = host
        self._speaker = speaker
        self._boot = boot
        self._keep = keep
        self._ties = ties
        self._clock = clock
        self._administrator = config.ownership.administrator
        self._router_id = int(IPv4Address(config.bgp.router_id))
        self.settings = config.failover
        self._vhids = frozenset(vhid for group in self.settings.groups for vhid in group.vhids)
        self._pfsync = any(group.pfsync for group in self.settings.groups)
        self._devd = watch.Devd(config.paths.devd, self.events, self._missed)
        self._stirred = asyncio.Event()
        self._eventful = False
        """Whether an event came since the look that is under way began."""
        self._look_wanted = True
        self._looked_at = float("-inf")
        self.seen: Seen | None = None
        """What is known of CARP: the last look, and the events since."""
        self.decision: Decision | None = None
        self.decided = asyncio.Event()
        """Set once the first decision was made."""
        self._waiters: set[asyncio.Event] = set()
        self._believed: dict[Vhid, str] = {}
        self._turns: dict[Vhid, int] = {}
        """How often each vhid's events were believed since a look that none came into."""
        self._doubted: dict[Vhid, float] = {}
        self._most = 0
        """How many sessions were up at once, at most."""
        self._news_at = float("-inf")
        self._later: asyncio.TimerHandle | None = None
        """The decision about what the fabric has said since the last one."""
        self._announced: dict[Prefix, Stance] = {}
        self._refused: dict[Prefix, str] = {}
        self._told: tuple[str, ...] = ()
        self._trouble = ""
        self._unsaid = ""
        """What went wrong with the demotion, "" while nothing does."""
        self._report: tuple[str, ...] = ()
        self._unkept = False
        """Whether the record could not be stored last."""
        self._place = ""
        memory, record = kept(MEMORY), kept(RECORD)
        values = memory if isinstance(memory, Mapping) else {}
        self._memory = policy.recalled(values.get("memory"), rebooted=values.get("boot") != boot)
        self._record: Record | None = accounting.recalled(record)

    # -- what the agent tells

    @property
    def active(self) -> bool:
        """Whether there is anything to do, or to take back."""
        record = self._record
        return bool(self.settings.groups) or (
            record is not None and bool(record.ours or record.pending or record.doubts)
        )

    def events(self, told: Iterable[tuple[Vhid, str]]) -> None:
        """Take what devd tells of, in its order."""
        before = self.seen
        for vhid, state in told:
            if vhid in self._vhids:
                self._event(vhid, state)
        if self.seen is not before:
            self._decide()

    def _event(self, vhid: Vhid, state: str) -> None:
        self._look_wanted = True
        self._stirred.set()
        seen, now = self.seen, self._clock()
        if now < self._doubted.get(vhid, 0.0):
            return
        self._eventful = True
        if seen is None or seen.state(vhid) in ("", state):
            return
        turns = self._turns[vhid] = self._turns.get(vhid, 0) + 1
        if turns > TURNS:
            # a flood of them, which no look goes by without
            self._doubt(vhid, f"{turns} turns at once", now)
            return
        self.seen = seen.turned(vhid, state)
        self._believed[vhid] = state

    def _missed(self) -> None:
        self._eventful = self._look_wanted = True
        self._stirred.set()

    def _doubt(self, vhid: Vhid, why: str, now: float) -> None:
        log.warning("an event was not so: looked at first from now on", extra={"vhid": str(vhid), "reason": why})
        self._doubted[vhid] = now + DOUBTED_FOR

    def fabric_news(self) -> None:
        """Say that the fabric shows something else: decided at once, or soon, where that was done a moment ago."""
        self._most = max(self._most, self._established())
        if self._later is not None or not self.settings.groups:
            return
        left = self._news_at + NEWS_APART - self._clock()
        if left <= 0:
            self._fabric_has_told()
        else:
            self._later = asyncio.get_running_loop().call_later(left, self._fabric_has_told)

    def _fabric_has_told(self) -> None:
        self._later, self._news_at = None, self._clock()
        self.news()

    def news(self) -> None:
        """Say that something may have changed about the fabric, the jails or a drain: decided at once."""
        # while looks fail, what was seen last may be past: nobody decides by that
        if self.seen is not None and self.settings.groups and not self._trouble:
            before = self.decision.demotion if self.decision else 0
            self._decide()
            if self.decision is not None and self.decision.demotion != before:
                self._stirred.set()

    # -- what it tells

    def of_jail(self, jail: str, announce: Announce) -> Told | None:
        """Return what a jail goes with, None where it goes with nothing."""
        group = self.settings.of_jail(jail, announce.group)
        if group is None:
            return None
        return Told(group, self.decision.groups[group.name] if self.decision else None)

    def attributes(self, announce: Announce, told: Told) -> Announce:
        """Return how a jail's, or a service's, prefixes are announced."""
        stance = told.ruling.stance if told.ruling else Stance.LESS
        return policy.announced(
            announce, stance, told.group, administrator=self._administrator, router_id=self._router_id
        )

    async def handed_over(self, within: float) -> bool:
        """Wait until nothing of any group is announced here; tell whether that came to pass `within` seconds."""
        news = asyncio.Event()
        self._waiters.add(news)
        try:
            async with asyncio.timeout(within):
                while not (self._gone() or self._stuck()) and self._ties.drained()[0] is not Drain.NO:
                    news.clear()
                    await news.wait()
        except TimeoutError:
            pass
        finally:
            self._waiters.discard(news)
        return self._gone() and all(map(self._taken_over, self.settings.groups))

    def _gone(self) -> bool:
        rulings = self.decision.groups.values() if self.decision else ()
        return not self.settings.groups or (bool(rulings) and all(each.stance is Stance.WITHDRAWN for each in rulings))

    def _stuck(self) -> bool:
        """Tell whether it is the master and demotes itself for nothing: nobody will take over, however long one waits."""
        seen, decision = self.seen, self.decision
        if seen is None or seen.preempt is True or decision is None:
            return False
        return any(ruling.role is Role.MASTER for ruling in decision.groups.values())

    def _taken_over(self, group: Group) -> bool:
        """Tell whether there is another master: a host that shuts down withdraws without one, too."""
        backup = self.decision is not None and self.decision.groups[group.name].role is Role.BACKUP
        return backup or self._sees_other(group)

    @property
    def announced(self) -> tuple[Prefix, ...]:
        """The prefixes that the host itself announces."""
        return tuple(self._announced)

    def leave(self) -> list[Prefix]:
        """Withdraw what the host itself announces, for its shutdown; return it."""
        before = list(self._announced)
        for prefix in before:
            self._speaker.unwant(prefix)
            self._announced.pop(prefix)
        return before

    # -- the loop

    async def run(self) -> None:
        """Follow CARP until cancelled. Announcements and demotion stand when this ends."""
        if not self.settings.groups:
            self.decided.set()
        tasks = [asyncio.create_task(self._settles(), name="carp")]
        if self.settings.groups:
            tasks.append(asyncio.create_task(self._devd.run(), name="devd"))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # neither ends but by an error, which has to be known
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._later is not None:
                self._later.cancel()

    async def _settles(self) -> None:
        while True:
            self._stirred.clear()
            wait = await self.settle() if self.active else None
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._stirred.wait()

    async def settle(self) -> float:
        """Look, where it is time to, decide, and see to the demotion; return in how many seconds to call again."""
        now = self._clock()
        try:
            if not self._place:
                await self._find_place()
            if now - self._looked_at >= LOOK_EVERY or (self._look_wanted and now - self._looked_at >= LOOK_APART):
                await self._look()
            self._decide()
            await _to_its_end(self._account())
            self._trouble = ""
        except Trouble as error:
            if str(error) != self._trouble:
                log.error("failover", extra={"problem": str(error)})  # noqa: TRY400
            self._trouble = str(error)
            return LOOK_EVERY
        due = self.decision.due if self.decision else None
        moments = [self._looked_at + (LOOK_APART if self._look_wanted else LOOK_EVERY)]
        if due is not None:
            moments.append(due + TICK)
        return max(TICK, min(moments) - self._clock())

    async def _look(self) -> None:
        for _ in range(LOOKS):
            self._eventful = self._look_wanted = False
            self._looked_at = self._clock()
            try:
                seen = await watch.look(self._host, {vhid.interface for vhid in self._vhids}, pfsync=self._pfsync)
            except Trouble:
                self._believed.clear()
                raise
            if not self._eventful:
                break  # else it may show what was before the event
        else:
            self._look_wanted = True
        if not self._eventful:
            now = self._clock()
            for vhid, state in self._believed.items():
                if seen.state(vhid) != state:
                    self._doubt(vhid, f"{state}, which a look did not show", now)
            self._turns.clear()
        self._believed.clear()
        self.seen = seen

    def _decide(self) -> None:
        """Decide anew, and do what needs no command."""
        if self.seen is None or not self.settings.groups:
            return
        drained, _ = self._ties.drained()
        before = self.decision
        self.decision = policy.decide(
            self.seen, self._memory, self._fabric(), self.settings, self._clock(), drained=drained
        )
        changed, self._memory = self.decision.memory != self._memory, self.decision.memory
        turned = {
            name
            for name, ruling in self.decision.groups.items()
            if before is None or before.groups[name].stance is not ruling.stance
        }
        self._announce()
        if turned:
            self._ties.turned(turned)
        # the routes did not wait for the disk
        for name in sorted(turned):
            ruling = self.decision.groups[name]
            log.info("failover", extra={"failover": name, "stance": str(ruling.stance), "reason": ruling.reason})
            self._ties.note(f"failover {name}", f"{ruling.stance}: {ruling.reason}")
            self._ties.changed(name, str(ruling.stance))
        self._tell(self.decision.warnings)
        if changed:
            self._keep(MEMORY, {"boot": self._boot, "memory": asdict(self._memory)})
        self.decided.set()
        for waiter in self._waiters:
            waiter.set()

    def _established(self) -> int:
        return sum(session.up for session in self._speaker.sessions().values()) if self._speaker.connected else 0

    def _fabric(self) -> Fabric:
        established = self._established()
        self._most = max(self._most, established)
        unseen = {group.name: self._unseen(group) for group in self.settings.groups}
        return Fabric(
            established=established,
            peers=len(self._speaker.sessions()),
            acknowledged=self._speaker.connected and not self._speaker.busy,
            sees_other={name: prefix is None for name, prefix in unseen.items()},
            unseen={name: prefix for name, prefix in unseen.items() if prefix},
            heard=self._ties.heard(),
            told=self._speaker.connected,
            most=self._most,
        )

    def _sees_other(self, group: Group) -> bool:
        """Tell whether the fabric shows another host's preferred path to all of a group's prefixes."""
        return self._unseen(group) is None

    def _unseen(self, group: Group) -> str | None:
        """Return a prefix of a group's to which it shows none; "" where the group has no prefix, None where it shows all."""
        texts = [*map(prefix_text, group.services), *self._ties.announced(group)]
        return next((text for text in texts if not self._other_is_preferred(text)), None) if texts else ""

    def _other_is_preferred(self, text: str) -> bool:
        for paths in self._speaker.paths(text).values():
            for path in paths:
                listed = path.attributes.get("large-community")
                words = [each for each in listed if isinstance(each, str)] if isinstance(listed, list) else []
                told = policy.told(words, self._administrator)
                if told is not None and told[0] != self._router_id and told[1] is Stance.PREFERRED:
                    return True
        return False

    def _announce(self) -> None:
        """Bring the announcements of what lies behind the pair to where they should be."""
        assert self.decision is not None  # noqa: S101  # its callers have decided
        _, over = self._ties.drained()
        wanted: dict[Prefix, Told] = {}
        self._refused.clear()
        for group in self.settings.groups:
            told = Told(group, self.decision.groups[group.name])
            for prefix in group.services:
                if jail := self._ties.jail_of(prefix_text(prefix)):
                    self._refused[prefix] = (
                        f"failover {group.name}: {prefix} is granted to jail {jail}, which announces it: write the jail "
                        f"into failover.{group.name}.jails, and take the prefix out of its services"
                    )
                elif told.announced and not over:
                    wanted[prefix] = told
        for prefix, told in wanted.items():
            attributes = announcement.attributes(self.attributes(Announce(), told))
            try:
                self._speaker.want(prefix, attributes)
            except ValueError as error:
                self._refused[prefix] = f"failover {told.group.name}: {error}"
            else:
                self._announced[prefix] = told.ruling.stance if told.ruling else Stance.LESS
        every = {prefix for group in self.settings.groups for prefix in group.services}
        for prefix in every - wanted.keys():
            if prefix not in self._refused:
                self._speaker.unwant(prefix)
            self._announced.pop(prefix, None)

    # -- the demotion

    async def _find_place(self) -> None:
        """Find out which vnet this is. What was added in one that can not be told from it may be in here, or not."""
        place = accounting.place(self._boot, await watch.vnet(self._host))
        record = self._record
        if record is not None and record.place != place and record.place.startswith(accounting.place(self._boot, "")):
            record = accounting.uncertain(record)
            doubts = (*record.doubts, Doubt(record.ours, record.before)) if record.ours else record.doubts
            self._record = Record(place, doubts=doubts)
        self._place = place

    async def _account(self) -> None:
        """Have exactly that much of the demotion as ours that should be: what is about to be written is kept first."""
        if self.seen is None or self.seen.demotion is None:
            return
        wanted = self.decision.demotion if self.decision else 0
        settled = accounting.settle(self._record, self._place, wanted, self.seen.demotion)
        for text in settled.report if settled.report != self._report else ():
            log.warning("demotion", extra={"problem": text})
            self._ties.note("demotion", text)
        self._report = settled.report
        if not settled.steps:
            self._record = settled.record
        steps = settled.steps or ((Keep(settled.record),) if self._unkept else ())
        for step in steps:
            match step:
                case Keep(record):
                    self._record = record
                    self._unkept = not self._keep(RECORD, asdict(record))
                    if self._unkept and record.pending:
                        # what can not be remembered is not done
                        self._record = accounting.refused(record)
                        self._say("the database can not be written: the demotion is left as it is")
                        return
                case Add(amount):
                    if not await self._add(amount):
                        return
        self._say("")

    async def _add(self, amount: int) -> bool:
        """Write the sysctl; tell whether that went well."""
        assert self._record is not None  # noqa: S101  # it says what is about to be written
        argv = ["sysctl", f"{watch.DEMOTION}={amount}"]
        reason = self.decision.reason if self.decision else ""
        try:
            result = await self._host.command(argv)
        except Trouble as error:
            # it may have been done before the time was up
            self._record = accounting.uncertain(self._record)
            self._unkept = not self._keep(RECORD, asdict(self._record))
            self._look_wanted = True
            self._say(str(error))
            return False
        log.info("ran", extra={"argv": " ".join(argv), "status": result.status, "seconds": round(result.seconds, 4)})
        if result.status != 0:
            self._record = accounting.refused(self._record)
            self._unkept = not self._keep(RECORD, asdict(self._record))
            self._say(f"{' '.join(argv)}: {result.complaint}: the agent must run as root, and not in a jail")
            return False
        self._ties.note("demotion", f"{' '.join(argv)}: {reason or 'nothing asks for it any more'}")
        if self.seen is not None and self.seen.demotion is not None:
            self.seen = replace(self.seen, demotion=self.seen.demotion + amount)
        self._look_wanted = True
        return True

    def _say(self, what: str) -> None:
        if what and what != self._unsaid:
            log.error("demotion", extra={"problem": what})
        self._unsaid = what

    # -- what is told

    def _tell(self, warnings: tuple[str, ...]) -> None:
        for text in warnings:
            if text not in self._told:
                log.warning("failover", extra={"problem": text})
        self._told = warnings

    @property
    def problems(self) -> tuple[str, ...]:
        """What an operator should know, each with what to do."""
        asleep = f"devd does not tell of CARP: {self._devd.trouble}: service devd restart" if self._devd.trouble else ""
        devd = asleep if self.settings.groups and self.seen is not None else ""
        asked = self.decision.reason if self.decision and not self.decision.demotion else ""
        doubts = self._lines()[-len(self._record.doubts) :] if self._record and self._record.doubts else ()
        several = (
            *(*self._told, asked, *self._refused.values()),
            *(*self._report, *doubts, self._unsaid, self._trouble, devd),
        )
        return tuple(dict.fromkeys(text for text in several if text))

    def _of_now(self) -> Record | None:
        """Return what is recorded of this boot and vnet."""
        return self._record if self._record is not None and self._record.place == self._place else None

    def _lines(self) -> tuple[str, ...]:
        return accounting.whose(self._of_now(), self.seen or Seen())

    def describe(self) -> dict[str, Any]:
        """Return what `mobility status --json` shows: each group, CARP, pfsync, and whose demotion is whose."""
        seen, decision = self.seen or Seen(), self.decision
        record = self._of_now()
        return {
            "groups": [
                self._described(group, decision.groups[group.name] if decision else None)
                for group in self.settings.groups
            ],
            "pfsync": asdict(seen.pfsync) if self._pfsync else None,
            "preempt": seen.preempt,
            "demotion": {
                "total": seen.demotion,
                "ours": record.ours if record else 0,
                "wanted": decision.demotion if decision else 0,
                "reason": decision.reason if decision else "",
                "lines": list(self._lines()),
            },
            "devd": self._devd.trouble,
            "problems": list(self.problems),
        }

    def _described(self, group: Group, ruling: Ruling | None) -> dict[str, Any]:
        seen = self.seen or Seen()
        return {
            "name": group.name,
            "stance": str(ruling.stance) if ruling else "",
            "role": str(ruling.role) if ruling else "",
            "reason": ruling.reason if ruling else UNDECIDED,
            "vhids": {str(vhid): seen.state(vhid) for vhid in group.vhids},
            "jails": list(group.jails),
            "groups": list(group.groups),
            "services": {
                str(prefix): {peer: str(state) for peer, state in self._speaker.route(prefix).items()}
                for prefix in group.services
            },
            "sees_other": self._sees_other(group),
        }


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Do it to its end, also when cancelled meanwhile: a stop in order must not leave a write of which nobody knows."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])  # a command ends at its time limit
        raise
