"""The database: what outlives the agent, and what a damaged or full one costs."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from mobility.decide import How, Memory
from mobility.model import Phase
from mobility.store import EVERYTHING, UNTIL_BOOT, Store, StoreError

MEMORY = Memory(Phase.PRESTOP, 12.5, 7, 10.0, 7, ("198.51.100.7",), 13.0, ("198.51.100.7", "2001:db8:7::7"), 7)
ADOPTED = Memory(jid=3, how=How.INTERFACE, adopted="e0a_web2", bridge="bridge0")


def test_what_is_remembered_is_of_this_boot(tmp_path: Path) -> None:
    path = tmp_path / "state" / "mobility.sqlite"
    store = Store(path, "boot1")
    store.remember("web1", MEMORY)
    store.remember("web2", Memory(jid=3))
    store.remember("web2", Memory())
    store.drain(EVERYTHING, 1000.0)
    store.close()
    store = Store(path, "boot1")
    assert store.memories() == {"web1": MEMORY}
    store.close()
    store = Store(path, "boot2")
    assert store.memories() == {}
    assert store.drains() == {EVERYTHING: 1000.0}
    store.undrain(EVERYTHING)
    assert store.drains() == {}
    store.prune(0.0)
    store.close()
    assert Store(path, "boot1").memories() == {}


def test_what_was_taken_from_a_manager_is_remembered(tmp_path: Path) -> None:
    store = Store(tmp_path / "db", "boot")
    store.remember("web2", ADOPTED)
    store.close()
    assert Store(tmp_path / "db", "boot").memories() == {"web2": ADOPTED}


def test_a_drain_for_shutdown_ends_with_the_boot(tmp_path: Path) -> None:
    store = Store(tmp_path / "db", "boot1")
    store.drain(UNTIL_BOOT, 1000.0)
    store.drain("web1", 1000.0)
    store.close()
    again = Store(tmp_path / "db", "boot1")
    assert again.drains() == {UNTIL_BOOT: 1000.0, "web1": 1000.0}
    again.close()
    assert Store(tmp_path / "db", "boot2").drains() == {"web1": 1000.0}


def test_a_database_of_version_1_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "db"
    old = sqlite3.connect(path)
    old.executescript(
        """
        CREATE TABLE jail (name TEXT PRIMARY KEY, boot TEXT NOT NULL, phase TEXT, phase_at REAL NOT NULL, jid INTEGER,
            seen_at REAL NOT NULL, started INTEGER, rejects TEXT NOT NULL, rejects_at REAL NOT NULL,
            granted TEXT NOT NULL, wired INTEGER, announced_at REAL NOT NULL) WITHOUT ROWID;
        CREATE TABLE drain (name TEXT PRIMARY KEY, since REAL NOT NULL) WITHOUT ROWID;
        CREATE TABLE history (id INTEGER PRIMARY KEY, at REAL NOT NULL, jail TEXT NOT NULL, what TEXT NOT NULL,
            detail TEXT NOT NULL);
        INSERT INTO jail VALUES ('web1', 'boot', 'prestop', 12.5, 7, 10.0, 7, '198.51.100.7', 13.0,
            '198.51.100.7 2001:db8:7::7', 7, 0.0);
        INSERT INTO jail VALUES ('web2', 'boot', NULL, 0.0, 3, 1.0, NULL, '', 0.0, '', NULL, 0.0);
        INSERT INTO drain VALUES ('web1', 1000.0);
        INSERT INTO history (at, jail, what, detail) VALUES (1000.0, 'web1', 'announced', '');
        PRAGMA user_version=1;
        """
    )
    old.close()
    store = Store(path, "boot")
    assert store.drains() == {"web1": 1000.0}
    assert [line.what for line in store.history(limit=10)] == ["announced"]
    assert store.memories() == {"web1": MEMORY, "web2": Memory(jid=3, seen_at=1.0)}


def test_history_is_in_order_and_pruned(tmp_path: Path) -> None:
    store = Store(tmp_path / "db", "boot")
    for number in range(5):
        store.note("web1" if number % 2 else "web2", f"event {number}")
    assert [line.what for line in store.history(limit=3)] == ["event 2", "event 3", "event 4"]
    assert [line.what for line in store.history("web1", limit=10)] == ["event 1", "event 3"]
    newest = store.history(limit=1)[0]
    assert store.history(limit=10, after=newest.id) == []
    store.prune(newest.at + 1)
    assert store.history(limit=10) == []


def test_only_root_reads_it(tmp_path: Path) -> None:
    Store(tmp_path / "state" / "db", "boot")
    assert (tmp_path / "state" / "db").stat().st_mode & 0o077 == 0
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", [b"this is no database, but long enough to be read as a header of one" * 20])
def test_what_is_no_database_is_refused_with_advice(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "db").write_bytes(content)
    with pytest.raises(StoreError, match="move it away"):
        Store(tmp_path / "db", "boot")
    assert (tmp_path / "db").read_bytes() == content


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "db") as database:
        database.execute("PRAGMA user_version=99")
    with pytest.raises(StoreError, match="version 99"):
        Store(tmp_path / "db", "boot")


def test_a_write_that_fails_is_counted_and_nothing_else(tmp_path: Path) -> None:
    failures: list[int] = []
    store = Store(tmp_path / "db", "boot", lambda: failures.append(1))
    store.note("web1", "before")
    locked = sqlite3.connect(tmp_path / "db", isolation_level=None)
    locked.execute("BEGIN IMMEDIATE")
    store.note("web1", "lost")
    store.remember("web1", MEMORY)
    assert failures == [1, 1]
    assert "locked" in store.last_error
    locked.execute("ROLLBACK")
    locked.close()
    store.note("web1", "after")
    assert store.last_error == ""
    assert [line.what for line in store.history(limit=10)] == ["before", "after"]
