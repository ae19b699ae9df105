"""What Bastille keeps of its jails: jails/NAME/jail.conf and settings.conf on the host, root/etc/rc.conf in the jail.

Sources: Bastille 1.4.4, create.sh (generate_jail_conf, generate_vnet_jail_conf), network.sh, templates/default/vnet.
"""

from __future__ import annotations

from pathlib import Path

from mobility.jails import jailconf, netblock, rcconf, rcnet
from mobility.jails.said import Said, Signature, file_signature, hooked, read_managers, stat_beneath
from mobility.model import jail_name

GRANT = "mobility_addresses"
"""A setting of ours in a jail's settings.conf: its addresses, in one place that `bastille migrate` takes along."""


class Bastille:
    """The jails of a Bastille whose `bastille_prefix` is given. See `said.Manager`."""

    name = "bastille"

    def __init__(self, prefix: Path) -> None:
        self._jails = prefix / "jails"

    def names(self) -> list[str]:
        """Return the jails that have a folder with a jail.conf; none where Bastille's folder is not there."""
        try:
            entries = sorted(entry.name for entry in self._jails.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [name for name in entries if _fit(name) and self.conf(name).is_file()]

    def conf(self, jail: str) -> Path:
        """Return where a jail's jail.conf is."""
        return self._jails / jail / "jail.conf"

    def faults(self) -> list[str]:
        """Return none: each jail has a file of its own, whose faults are the jail's."""
        return []

    def signature(self, jail: str, *, requests: bool) -> Signature:
        """Return what changes whenever `read` could answer something else; () where there is no such jail."""
        conf = file_signature(self.conf(jail)) if _fit(jail) else ()
        if not conf:
            return ()
        settings = file_signature(self._jails / jail / "settings.conf")
        return (*conf, 0, *settings, 0, *(stat_beneath(self._jails / jail / "root", rcnet.RC_CONF) if requests else ()))

    def read(self, jail: str, *, requests: bool) -> Said | None:
        """Return what a jail's files say. Raises ValueError with a sentence for the operator. See `said.Manager`."""
        if not _fit(jail):
            return None
        path = self.conf(jail)
        try:
            text = read_managers(path)
        except FileNotFoundError:
            return None
        parsed = _jail(jail, path, text)
        granted = self._granted(jail)
        if not parsed.vnet:
            return _on_host(jail, path, parsed, granted)
        replaced = netblock.has_marks(text)
        before = _jail(jail, path, netblock.original(text)) if replaced else parsed
        links = netblock.links(before.values(netblock.VNET_INTERFACE))
        rc, advice = rcnet.rc_conf(self._jails / jail / "root") if requests else (None, [])
        named = ""
        asked: list[str] = []
        if links and rc is not None:
            named = rcnet.named(links[0].inner, rc)
            sysrc = f"bastille sysrc {jail}"
            asked, more = rcnet.asked(named or links[0].inner, rc, sysrc=sysrc, replaced=replaced)
            advice += more
        ends = [link.ends(named if number == 0 else "") for number, link in enumerate(links)]
        # the first one carries the addresses: where that is no pair, or ours has taken its place, there is none to adopt
        adoptable = ends if ends and ends[0] and not replaced else []
        return Said(
            jail,
            self.name,
            str(path),
            True,
            tuple(granted),
            tuple(asked),
            tuple(end for end in adoptable if end is not None),
            tuple(advice),
            hooks=hooked(parsed.values("exec.poststart"), jail),
        )

    def _granted(self, jail: str) -> list[str]:
        path = self._jails / jail / "settings.conf"
        try:
            settings = rcconf.parse(read_managers(path))
        except FileNotFoundError:
            return []
        except ValueError as error:
            raise ValueError(_about(path, error)) from error
        if GRANT in settings.unclear:
            raise ValueError(f'{path}: {GRANT} must be plain text: {GRANT}="198.51.100.7 2001:db8:7::7"')
        return settings.get(GRANT).replace(",", " ").split()


def _fit(name: str) -> bool:
    try:
        jail_name(name)
    except ValueError:
        return False
    return True


def _about(path: Path, error: ValueError) -> str:
    return str(error) if str(path) in str(error) else f"{path}: {error}"


def _jail(name: str, path: Path, text: str) -> jailconf.Jail:
    jail = jailconf.load(path, lambda asked: text if asked == path else read_managers(asked)).jail(name)
    if jail is None:
        raise ValueError(f"{path} holds no block {name} {{ }}: Bastille starts a jail by the name of its folder")
    if jail.problems:
        raise ValueError(f"{path}: {jail.problems[0]}")
    return jail


def _on_host(jail: str, path: Path, parsed: jailconf.Jail, granted: list[str]) -> Said:
    """Return what is said of a jail whose addresses jail(8) puts on an interface of the host."""
    advice = []
    addresses: dict[str, None] = {}
    for family, words, full in (("ip4", "IPv4", "32"), ("ip6", "IPv6", "128")):
        if parsed.last(family) == "inherit" or parsed.has("ip_hostname"):
            advice.append(
                f"it shares the host's {words} addresses, and those never move: give it its own: "
                f"bastille config {jail} set {family}.addr 'bastille0|ADDRESS'"
            )
        for value in parsed.values(f"{family}.addr"):
            address, slash, length = value.rpartition("|")[2].partition("/")
            addresses[address] = None
            if slash and length != full:
                advice.append(
                    f"{address}/{length} lays the whole network on the host's interface, and the host would look for its "
                    f"other addresses there: write {address}/{full} into {family}.addr"
                )
    if granted:
        advice.append(
            f"{GRANT} in its settings.conf is for jails with vnet: jail(8) gives this one what ip4.addr and ip6.addr say"
        )
    return Said(jail, Bastille.name, str(path), False, tuple(addresses), advice=tuple(advice))
