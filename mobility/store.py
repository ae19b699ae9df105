"""What outlives the agent: what is remembered of each jail, drains, and the history, in one SQLite file.

Nothing here is needed to be right about the network (a look is), so a database that can not be written costs history
and never a route: errors are counted, logged and shown in `mobility status`, and the agent goes on.
No fsync: after a crash of the machine no jail runs, and what is remembered of another boot is not used.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mobility import announcement
from mobility.bgp.ownership import Held, Record
from mobility.damping import Damping
from mobility.decide import How, Memory
from mobility.model import Phase
from mobility.uplinks import Way

log = logging.getLogger(__name__)

SCHEMA_VERSION = 4
BUSY_TIMEOUT = 0.05
"""Seconds to wait for somebody else's lock on the file: the agent's loop stands still meanwhile."""
READ_TIMEOUT = 5.0
"""Seconds that the `mobility` command waits for a lock: an agent that upgrades the file has it for a moment."""
_JAILS = "CREATE TABLE jail (name TEXT PRIMARY KEY, boot TEXT NOT NULL, memory TEXT NOT NULL) WITHOUT ROWID;"
_SINCE_3 = """
CREATE TABLE ownership (name TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE handing (name TEXT PRIMARY KEY, boot TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE uplink (boot TEXT PRIMARY KEY, ways TEXT NOT NULL) WITHOUT ROWID;
"""
_SINCE_4 = "CREATE TABLE kept (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
_SCHEMA = f"""
{_JAILS}
{_SINCE_3}
{_SINCE_4}
CREATE TABLE drain (name TEXT PRIMARY KEY, since REAL NOT NULL, boot TEXT) WITHOUT ROWID;
CREATE TABLE history (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, jail TEXT NOT NULL, what TEXT NOT NULL, detail TEXT NOT NULL
);
CREATE INDEX history_jail ON history (jail, id);
"""
_FROM_1 = f"""
ALTER TABLE jail RENAME TO jail_1;
{_JAILS}
INSERT INTO jail SELECT name, boot, json_object(
    'phase', phase, 'phase_at', phase_at, 'jid', jid, 'seen_at', seen_at, 'started', started,
    'rejects', json('["' || replace(rejects, ' ', '","') || '"]'), 'rejects_at', rejects_at,
    'granted', json('["' || replace(granted, ' ', '","') || '"]'), 'wired', wired, 'announced_at', announced_at
) FROM jail_1;
DROP TABLE jail_1;
ALTER TABLE drain ADD COLUMN boot TEXT;
"""  # noqa: S608  # made of constants
"""Version 1 kept what is remembered in columns; its rejects and grants are addresses with blanks between."""
_UPGRADES = {1: _FROM_1, 2: _SINCE_3, 3: _SINCE_4}
"""By version: what brings it to the next."""
EVERYTHING = "*"
"""The drain of the whole host, beside those of single jails."""
UNTIL_BOOT = "*boot"
"""The drain of the whole host for its shutdown: forgotten at the next boot."""


class StoreError(Exception):
    """The database can not be used at all; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of history; `at` is UTC, in seconds since the epoch."""

    id: int
    at: float
    jail: str
    what: str
    detail: str


def read_history(
    path: Path,
    *,
    limit: int,
    jails: Collection[str] = (),
    since: float | None = None,
    kinds: Collection[str] = (),
) -> list[Happening]:
    """Return the newest `limit` lines of the history, oldest first, whether an agent runs or not.

    `since` is UTC, in seconds; `kinds` are what happened; `jails` are those of whom it is told, "" the host itself. The
    database is opened to be read only: a reader of a WAL database keeps no writer waiting (sqlite.org, wal.html).
    Raises StoreError where there is none, or it can not be read.
    """
    try:
        path.stat()
        # no log beside it: nobody has it open, and SQLite would make two files there, even to read it only (sqlite.org,
        # wal.html, "Read-Only Databases")
        how = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "mode=ro&immutable=1"
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(
            f"{path} is not there: it is written from the agent's first start on: service mobility start"
        ) from error
    except OSError as error:
        raise StoreError(f"{path} can not be read ({error.strerror}): run this as root") from error
    where, values = ["1"], list[object]()
    for column, chosen in (("jail", jails), ("what", kinds)):
        if chosen:
            where.append(f"{column} IN ({', '.join('?' * len(chosen))})")
            values += chosen
    if since is not None:
        where.append("at >= ?")
        values.append(since)
    query = f"SELECT id, at, jail, what, detail FROM history WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT ?"  # noqa: S608  # marks only
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, timeout=READ_TIMEOUT)) as db:
            return [Happening(*row) for row in db.execute(query, (*values, limit))][::-1]
    except sqlite3.Error as error:
        raise StoreError(
            f"{path} can not be read ({error}): run this as root; if it is damaged, see the agent's log"
        ) from error


class Store:
    """The database. One connection, used from one thread."""

    def __init__(self, path: Path, boot: str, on_error: Callable[[], None] = lambda: None) -> None:
        """Open or make the database for this boot of the machine; `on_error` is called at each failed write.

        Raises StoreError where it is no database of ours, or of a newer version.
        """
        self._path = path
        self._boot = boot
        self._on_error = on_error
        self.on_note: Callable[[], None] = lambda: None
        """Called after each line of history."""
        self.last_error = ""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT)
            path.chmod(0o600)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=OFF")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
            elif version in _UPGRADES:
                steps = "".join(_UPGRADES[each] for each in range(version, SCHEMA_VERSION))
                self._db.executescript(f"BEGIN; {steps} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
            elif version != SCHEMA_VERSION:
                raise StoreError(
                    f"{path} is of version {version}, this program knows {SCHEMA_VERSION}: upgrade, or move it away"
                )
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"{path} can not be used ({error}): free the disk or mend its permissions; if damaged, move it away, "
                "lost with it are history, drains, and which bridges adopted links came from"
            ) from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
            self.last_error = ""
        except sqlite3.Error as error:
            self._on_error()
            if str(error) != self.last_error:
                log.error(  # noqa: TRY400  # its traceback says nothing more
                    "the database can not be written: routes are unaffected, history has a gap",
                    extra={"problem": str(error), "path": str(self._path)},
                )
            self.last_error = str(error)

    def memories(self) -> dict[str, Memory]:
        """Return what is remembered of each jail from this boot."""
        rows = self._db.execute("SELECT name, memory FROM jail WHERE boot = ?", (self._boot,))
        return {name: _memory(json.loads(text)) for name, text in rows}

    def remember(self, jail: str, memory: Memory) -> None:
        """Keep what is known of a jail; nothing worth keeping removes its row."""
        with self._writing():
            if memory == Memory():
                self._db.execute("DELETE FROM jail WHERE name = ?", (jail,))
            else:
                values = (jail, self._boot, _json(asdict(memory)))
                self._db.execute("REPLACE INTO jail VALUES (?, ?, ?)", values)

    def records(self) -> dict[str, Record]:
        """Return what is remembered of jails' ownership, from all boots."""
        rows = self._db.execute("SELECT name, record FROM ownership")
        return {name: _record(json.loads(text)) for name, text in rows}

    def record(self, jail: str, record: Record) -> None:
        """Keep what is known of a jail's ownership."""
        with self._writing():
            self._db.execute("REPLACE INTO ownership VALUES (?, ?)", (jail, _json(asdict(record))))

    def handing(self) -> set[str]:
        """Return the jails that were handed over since this boot."""
        return {name for (name,) in self._db.execute("SELECT name FROM handing WHERE boot = ?", (self._boot,))}

    def remember_handing(self, jails: Iterable[str]) -> None:
        """Keep which jails are handed over."""
        with self._writing():
            self._db.execute("DELETE FROM handing")
            self._db.executemany("INSERT INTO handing VALUES (?, ?)", [(name, self._boot) for name in jails])

    def kept(self, name: str) -> Any:
        """Return what was kept under a name, None where nothing was."""
        row = self._db.execute("SELECT value FROM kept WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def keep(self, name: str, value: Any) -> bool:
        """Keep a value that JSON can hold under a name; tell whether that could be done."""
        with self._writing():
            self._db.execute("REPLACE INTO kept VALUES (?, ?)", (name, _json(value)))
        return not self.last_error

    def uplinks(self) -> frozenset[Way]:
        """Return the default routes that the agent has made since this boot."""
        row = self._db.execute("SELECT ways FROM uplink WHERE boot = ?", (self._boot,)).fetchone()
        return frozenset(Way(*way) for way in json.loads(row[0])) if row else frozenset()

    def remember_uplinks(self, ways: frozenset[Way]) -> None:
        """Keep which default routes are the agent's."""
        with self._writing():
            self._db.execute("REPLACE INTO uplink VALUES (?, ?)", (self._boot, _json(sorted(ways))))

    def drains(self) -> dict[str, float]:
        """Return what is drained (jail names, EVERYTHING, UNTIL_BOOT) and since when (UTC)."""
        rows = self._db.execute("SELECT name, since FROM drain WHERE boot IS NULL OR boot = ?", (self._boot,))
        return dict(rows)

    def drain(self, name: str, since: float) -> None:
        """Keep that a jail, or the whole host, is drained since `since` (UTC)."""
        boot = self._boot if name == UNTIL_BOOT else None
        with self._writing():
            self._db.execute("INSERT OR REPLACE INTO drain VALUES (?, ?, ?)", (name, since, boot))

    def undrain(self, name: str) -> None:
        """Forget a drain."""
        with self._writing():
            self._db.execute("DELETE FROM drain WHERE name = ?", (name,))

    def note(self, jail: str, what: str, detail: str = "") -> None:
        """Add a line to the history, now."""
        with self._writing():
            self._db.execute(
                "INSERT INTO history (at, jail, what, detail) VALUES (?, ?, ?, ?)",
                (time.time(), jail, what, detail),
            )
        self.on_note()

    def history(self, jail: str | None = None, *, limit: int, after: int = 0) -> list[Happening]:
        """Return the newest `limit` lines with an id above `after`, oldest first, of one jail or of all."""
        where, values = ("jail = ? AND ", [jail]) if jail else ("", [])
        rows = self._db.execute(
            f"SELECT id, at, jail, what, detail FROM history WHERE {where}id > ? ORDER BY id DESC LIMIT ?",  # noqa: S608  # `where` is one of two literals
            (*values, after, limit),
        )
        return [Happening(*row) for row in rows][::-1]

    def newest(self) -> int:
        """Return the id of the newest line, 0 where there is none."""
        return int(self._db.execute("SELECT coalesce(max(id), 0) FROM history").fetchone()[0])

    def following(self, after: int, limit: int, jails: Collection[str] = ()) -> list[Happening]:
        """Return the first `limit` lines with an id above `after`, oldest first, of these jails or of all."""
        where = f"jail IN ({', '.join('?' * len(jails))}) AND " if jails else ""
        rows = self._db.execute(
            f"SELECT id, at, jail, what, detail FROM history WHERE {where}id > ? ORDER BY id LIMIT ?",  # noqa: S608  # `where` holds marks only
            (*jails, after, limit),
        )
        return [Happening(*row) for row in rows]

    def prune(self, before: float) -> None:
        """Drop history from before `before` (UTC), and what is remembered of other boots."""
        with self._writing():
            self._db.execute("DELETE FROM history WHERE at < ?", (before,))
            self._db.execute("DELETE FROM jail WHERE boot != ?", (self._boot,))
            self._db.execute("DELETE FROM drain WHERE boot != ?", (self._boot,))
            self._db.execute("DELETE FROM uplink WHERE boot != ?", (self._boot,))
            self._db.execute("DELETE FROM handing WHERE boot != ?", (self._boot,))

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _memory(values: dict[str, Any]) -> Memory:
    values["phase"] = Phase(values["phase"]) if values["phase"] else None
    values["how"] = How(values["how"]) if values.get("how") else None
    for name in ("rejects", "granted", "inner"):
        values[name] = tuple(text for text in values.get(name, ()) if text)
    held = values.get("held")
    if held:
        values["held"] = Held(held["claim"], tuple(held["told"]), tuple(held["lost"]), held["lost_to"], held["lost_at"])
    values["damping"] = Damping(**values.get("damping", {}))
    values["announce"] = announcement.recalled(values.get("announce") or {})
    return Memory(**values)


def _record(values: dict[str, Any]) -> Record:
    return Record(values["highest"], values["owner"], tuple(values["moves"]), values["frozen_at"])
