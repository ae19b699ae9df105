"""Our hooks in iocage's properties: jails/NAME/config.json, written as iocage writes it.

Source: iocage 1.2 (github.com/iocage/iocage at cbf0f60). How it runs what stands in a property:

- exec_prestart, exec_poststart, exec_prestop and exec_poststop: `/bin/sh -c` on the host, after shlex.split and joining by
  spaces, which takes one level of quotes and every newline away; what is one word only is run without a shell
  (ioc_common.py, runscript). Environment and PATH are its own, the folder is the caller's (ioc_exec.py, IOCExec).
- exec_created: the parameter exec.created of a jail.conf, between double quotes as it is (JailRuntimeConfiguration), so
  `/bin/sh -c` by jail(8).

What fails in exec_prestart, exec_created or exec_poststart makes iocage refuse the start, in exec_prestop the stop. A failed
start runs exec_poststop only where the jail was there already, and `iocage stop --force` runs no exec_prestop
(ioc_stop.py): as with jail(8), nothing may depend on them. Of what a command says on standard error it keeps the last 30
reads, empty ones too, so a hook's own words may be missing where it refuses (ioc_exec.py, exec_jail).

Ours comes first, then what the user has, untouched. The original values stand beside them as properties of ours,
mobility_NAME (null: it was not in the file): iocage keeps properties that it does not know, in every file that it writes,
clones, renames, exports and imports, and `iocage set` refuses to change them (ioc_json.py, json_check_prop).
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

from mobility.config import Config
from mobility.hooks.edit import Change, Hook, HooksError, State, Way, read
from mobility.jails import iocage, jailsd
from mobility.jails.iocage import ADDRESSES, MAKING, NONE, PREFIX, WAY, Properties
from mobility.model import Phase, host_prefix

KEPT = "mobility_"
TEXT = "mobility_text"
"""The whole file as it was, where iocage would have written it otherwise: its next start does that."""
RUNTIME = Path("/var/run")
"""Where iocage keeps jail.ioc-NAME.conf of each jail that runs (ioc_json.py, JailRuntimeConfiguration.path)."""
_PHASES = {
    Way.REPLACE: tuple(Phase),
    Way.ADOPT: (Phase.POSTSTART, Phase.PRESTOP, Phase.POSTSTOP),
}
_REFUSING = (Phase.PRESTART, Phase.CREATED, Phase.POSTSTART)
_ELSE_REFUSE = " || exit 1"
_PLAIN_WORD = re.compile(r"[A-Za-z0-9._/+@,:=-]+", re.ASCII)
_NOTHING_TO_RUN = "/usr/bin/true"
"""What iocage has where the user has nothing: it can not run an empty property (runscript)."""
_NEVER = object()
_MAKING_NOTHING: dict[str, Any] = {"ip4_addr": NONE, "ip6_addr": NONE, "dhcp": 0, "rtsold": 0}


class IocageEditor:
    """The hooks of iocage's jails. See `edit.Editor`; `loaded.managers.iocage` must be set."""

    name = "iocage"

    def __init__(self, loaded: Config, hook: Hook, runtime: Path = RUNTIME) -> None:
        if loaded.managers.iocage is None:
            raise HooksError("iocage: managers.iocage of mobility.toml names no folder")
        self._root = loaded.managers.iocage
        self._jails_d = loaded.paths.jails_d
        self._allowed = loaded.host.allowed
        self._hook = hook
        self._runtime = runtime

    def jails(self) -> list[str]:
        """Return the names of all jails with a config.json, those that can not be handled too; templates are none."""
        try:
            entries = sorted((self._root / "jails").iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise HooksError(f"iocage: {self._root / 'jails'} can not be read: {error.strerror}") from error
        return [entry.name for entry in entries if (entry / iocage.CONFIG).is_file()]

    def state(self, name: str) -> State:
        """Tell what is installed for one jail."""
        path, before = self._read(name)
        own = self._parse(name, path, before)
        if WAY not in own:
            return State(name, None, complete=False, path=path)
        way = _way(name, path, own)
        if way is Way.REPLACE and Properties(own, self._inherited(name)).ends():
            note = "iocage makes its interface again: somebody has set its addresses; install again, it takes them over"
            return State(name, way, complete=False, path=path, note=note)
        changes = self._changes(name, way)
        missing = ", ".join(str(change.path) for change in changes)
        note = f"{missing} is not as it should be: install again" if changes else ""
        return State(name, way, complete=not changes, path=path, note=note)

    def install(self, name: str, way: Way) -> list[Change]:
        """Return what has to change, nothing where it is so already. See `edit.Editor`."""
        changes = self._changes(name, way)
        self._refuse_running(name, changes)
        return changes

    def remove(self, name: str) -> list[Change]:
        """Return what restores the files to the byte; what others changed since then is kept."""
        changes = self._changes(name, None)
        self._refuse_running(name, changes)
        return changes

    def _changes(self, name: str, way: Way | None) -> list[Change]:
        path, before = self._read(name)
        granted = self._jails_d / f"{PREFIX}{name}{jailsd.SUFFIX}"
        granted_before = read(name, granted)
        inherited = self._inherited(name)
        now = self._parse(name, path, before)
        original = self._restored(now, inherited) if WAY in now else now
        text = before.decode() if WAY not in now else _text(original, now.get(TEXT))
        properties = Properties(original, inherited)
        block = _grant(name, properties)
        after = text.encode()
        granted_after = granted_before
        if block and granted_before and granted_before.startswith(block):
            granted_after = granted_before.removeprefix(block) or None
        if way is not None:
            wanted = self._installed(name, path, original, properties, way)
            if wanted == {key: value for key, value in now.items() if key != TEXT}:
                after = before
            else:
                after = _written(wanted if text == _written(original) else {**wanted, TEXT: text}).encode()
            if way is Way.REPLACE and properties.true("vnet"):
                granted_after = self._granting(name, granted, granted_after, properties, block)
        # the grant goes first in and last out: without it a jail with hooks would not start
        files = [(granted, granted_before, granted_after), (path, before, after)]
        return [Change(name, *file) for file in (files if way else reversed(files)) if file[1] != file[2]]

    def _installed(
        self, name: str, path: Path, original: dict[str, Any], properties: Properties, way: Way
    ) -> dict[str, Any]:
        """Return the properties with our hooks. HooksError where iocage could not run what is there already."""
        after = {**original, WAY: way.value}
        vnet = properties.true("vnet")
        if vnet and properties.true("nat"):
            raise HooksError(
                f"jail {name}: iocage gives it an address behind the host's own (nat=1), which can not follow it: "
                f"iocage set nat=0 ip4_addr=none {name}"
            )
        if vnet and way is Way.REPLACE:
            for key in MAKING:
                if _makes(properties, key):
                    after[KEPT + key] = original.get(key)
                    after[key] = _MAKING_NOTHING[key]
        # a jail without vnet has nothing to make or wire: its own addresses stay in both ways
        for phase in _PHASES[way if vnet else Way.ADOPT]:
            key = f"exec_{phase}"
            after[KEPT + key] = original.get(key)
            try:
                theirs = _quoted(phase, properties.text(key))
            except ValueError as error:
                raise HooksError(
                    f"jail {name}: {path}: iocage can not run its {key}, {properties.text(key)!r} ({error}): "
                    f"iocage set {key}=/usr/bin/true {name}"
                ) from error
            refuse = _ELSE_REFUSE if phase in _REFUSING else ""
            after[key] = f"{self._hook.command(phase, PREFIX + name)}{refuse}; {theirs}".removesuffix("; ")
        return after

    def _restored(self, now: dict[str, Any], inherited: dict[str, Any]) -> dict[str, Any]:
        """Return the properties without ours; what others changed since we came is kept."""
        original = {key: value for key, value in now.items() if key not in (WAY, TEXT)}
        for key in MAKING:
            kept = original.pop(KEPT + key, _NEVER)
            if kept is not _NEVER and key in now and not _makes(Properties(now, {}), key):
                _put(original, key, kept)
        for phase in Phase:
            key = f"exec_{phase}"
            kept = original.pop(KEPT + key, _NEVER)
            rest, found = self._ours(phase).subn("", str(now.get(key, "")))
            if kept is _NEVER or not found:
                continue
            with contextlib.suppress(ValueError):
                if rest == _quoted(phase, str(inherited.get(key, "") if kept is None else kept)):
                    _put(original, key, kept)
                    continue
            original[key] = rest.strip() or _NOTHING_TO_RUN
        return original

    def _ours(self, phase: Phase) -> re.Pattern[str]:
        """Return what finds our call in a property, whatever hook program and configuration it was installed with."""
        path = r"[A-Za-z0-9._/+@,-]+"
        program = rf"(?:{re.escape(str(self._hook.program))}|/[A-Za-z0-9._/+@,-]*mobility{path})"
        name = r"'?[A-Za-z0-9_.-]+'?"
        return re.compile(rf"{program}(?: -c {path})? {phase} {name}(?:{re.escape(_ELSE_REFUSE)})?(?:; ?|$)", re.ASCII)

    def _granting(
        self, name: str, path: Path, before: bytes | None, properties: Properties, block: bytes
    ) -> bytes | None:
        """Return the jail's file in jails.d with the addresses that make way, unless it grants some already."""
        if before is not None:
            try:
                if "addresses" in tomllib.loads(before.decode()):
                    return before
            except ValueError as error:  # no TOML, no UTF-8
                raise HooksError(f"jail {name}: {path} can not be read: {error}") from error
        if not block:
            raise HooksError(
                f"jail {name}: nobody says which addresses it has"
                f"{' but a DHCP server' if properties.dhcp else ''}: write addresses = "
                f'["198.51.100.7/32", "2001:db8:7::7/128"] into {path}'
            )
        for text in _addresses(properties):
            try:
                wrong = jailsd.unfit(PREFIX + name, host_prefix(text), self._allowed)
            except ValueError as error:
                wrong = str(error)
            if wrong:
                raise HooksError(f"jail {name}: {wrong}: mend its ip4_addr and ip6_addr, or host.allowed")
        return block + (before or b"")

    def _refuse_running(self, name: str, changes: list[Change]) -> None:
        """Refuse what would change a running jail's interface: its stop looks at the properties of then (ioc_stop.py)."""
        runtime = self._runtime / f"jail.{PREFIX}{name}.conf"
        if not runtime.exists():
            return
        inherited = self._inherited(name)
        for change in changes:
            if change.path.name != iocage.CONFIG or change.before is None or change.after is None:
                continue
            ends = [Properties(iocage.parse(side.decode()), inherited).ends() for side in (change.before, change.after)]
            if ends[0] != ends[1]:
                raise HooksError(
                    f"jail {name}: it runs, and iocage would leave its interface behind when it stops it: "
                    f"iocage stop {name} (should it run no more: rm {runtime})"
                )

    def _read(self, name: str) -> tuple[Path, bytes]:
        if wrong := iocage.unfit(name):
            raise HooksError(wrong)
        path = self._root / "jails" / name / iocage.CONFIG
        content = read(name, path)
        if content is None:
            raise HooksError(f"jail {name}: iocage has no such jail: there is no {path}; iocage list")
        return path, content

    def _parse(self, name: str, path: Path, content: bytes) -> dict[str, Any]:
        try:
            return iocage.parse(content.decode())
        except ValueError as error:  # no JSON, no UTF-8
            raise HooksError(f"jail {name}: {path} can not be edited: {error}") from error

    def _inherited(self, name: str) -> dict[str, Any]:
        try:
            return iocage.inherited(self._root)
        except ValueError as error:
            raise HooksError(f"jail {name}: {error}") from error


def _written(properties: dict[str, Any]) -> str:
    """Return properties as iocage writes them (ioc_json.py, json_write)."""
    return json.dumps(properties, sort_keys=True, indent=4, ensure_ascii=False)


def _way(name: str, path: Path, own: dict[str, Any]) -> Way:
    try:
        return Way(own[WAY])
    except ValueError as error:
        raise HooksError(
            f"jail {name}: {path}: {WAY} is {own[WAY]!r}, neither replace nor adopt: write one of them"
        ) from error


def _text(original: dict[str, Any], kept: object) -> str:
    """Return the text of a file: as it was, as long as it says the same, else as iocage would write it."""
    if isinstance(kept, str):
        with contextlib.suppress(ValueError):
            if iocage.parse(kept) == original:
                return kept
    return _written(original)


def _makes(properties: Properties, key: str) -> bool:
    """Tell whether one of MAKING has iocage make something."""
    return properties.text(key) != NONE if key in ADDRESSES else properties.true(key)


def _put(properties: dict[str, Any], key: str, value: object) -> None:
    """Set a property, or take it out (None)."""
    if value is None:
        properties.pop(key, None)
    else:
        properties[key] = value


def _quoted(phase: Phase, theirs: str) -> str:
    """Return what the user has so that it means behind ours what it means alone. Raises ValueError: iocage can not split it."""
    if phase is Phase.CREATED:
        return theirs
    words = shlex.split(theirs)
    if len(words) == 1 and not _PLAIN_WORD.fullmatch(words[0]):
        # alone it is run without a shell; behind ours one unquotes it after the other
        return shlex.quote(shlex.quote(words[0]))
    return theirs


def _addresses(properties: Properties) -> list[str]:
    return list(dict.fromkeys(text for name in ADDRESSES for _, text, _ in properties.addresses(name)))


def _grant(name: str, properties: Properties) -> bytes:
    """Return what stands in jails.d for addresses that make way, b"" where none do."""
    if not properties.true("vnet") or not _addresses(properties):
        return b""
    by = f"# By mobility hooks install iocage {name}: what its config.json gave it"
    return f"{by}\naddresses = {json.dumps(_addresses(properties))}\n".encode()
