"""The lab kernel's socket: who calls, from which jail, and what is answered.

A frame is a length (4 bytes, big endian), a kind (1 byte) and a payload. From a client: kind `c`, a command, argv with
a NUL after each argument; or kind `j`, JSON {"call": NAME, ...} (see client.py). To the client: `1` and `2` what to
print on standard output and standard error, `x` the exit status, `e` an order (NUL after each field) to enter a jail
and go on there, `j` the JSON answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.lab.commands import COMMANDS
from tests.lab.commands.support import Caller, Enter, Execute, Exit, Output
from tests.lab.kernel import carp, interfaces, pfsync, processes
from tests.lab.kernel.devctl import Devd
from tests.lab.kernel.errors import Errno, Refused
from tests.lab.kernel.machine import Machine
from tests.lab.kernel.state import Interface, Jail

_HEADER = struct.Struct("!I")
_CREDENTIALS = struct.Struct("=iII")
MAX_FRAME = 1 << 20
EX_SOFTWARE = 70


class Connection:
    """One client: what it has sent so far, and what it has not read yet."""

    def __init__(self, peer: socket.socket) -> None:
        self.socket = peer
        peer.setblocking(False)
        self.pid, self.uid, _gid = _CREDENTIALS.unpack(
            peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        self.incoming = bytearray()
        self.outgoing = bytearray()

    def frames(self) -> list[tuple[bytes, bytes]]:
        """The complete frames received: (kind, payload). ValueError for one that is too long."""
        found = []
        while len(self.incoming) >= _HEADER.size:
            (length,) = _HEADER.unpack_from(self.incoming)
            if not 1 <= length <= MAX_FRAME:
                raise ValueError(f"a frame of {length} bytes")
            end = _HEADER.size + length
            if len(self.incoming) < end:
                break
            body = bytes(self.incoming[_HEADER.size : end])
            del self.incoming[:end]
            found.append((body[:1], body[1:]))
        return found

    def answer(self, kind: bytes, payload: bytes) -> None:
        """Queue a frame."""
        self.outgoing += _HEADER.pack(len(payload) + 1) + kind + payload


class Server:
    """The event loop: one thread, so that whatever a command does, it does alone."""

    def __init__(self, machine: Machine, directory: Path, owner: int | None) -> None:
        self._machine = machine
        self._directory = directory
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._written = 0
        self._stop = False
        path = directory / "kernel.sock"
        self._listener.bind(str(path))
        path.chmod(0o777)
        self._listener.listen(128)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, "listener")
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        self._wakeup = (reader, writer)
        signal.set_wakeup_fd(writer.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._selector.register(reader, selectors.EVENT_READ, "signal")
        if owner is not None:
            self._selector.register(owner, selectors.EVENT_READ, "owner")
        machine.carps.watch = lambda interface, wire: self._watch(wire, interface)
        machine.carps.unwatch = self._unwatch
        machine.on_devd, machine.off_devd = self._watch_devd, self._unwatch_devd
        for devd in machine.devds.values():
            self._watch_devd(devd)
        self._note_namespaces()

    def _watch(self, what: socket.socket, data: object) -> None:
        self._selector.register(what, selectors.EVENT_READ, data)

    def _unwatch(self, what: socket.socket) -> None:
        self._selector.unregister(what)

    def _watch_devd(self, devd: Devd) -> None:
        if devd.listener is not None:
            self._watch(devd.listener, devd)

    def _unwatch_devd(self, devd: Devd) -> None:
        if devd.listener is not None:
            self._unwatch(devd.listener)

    def _carefully(self, action: Callable[[], object]) -> None:
        """Do what nobody waits for."""
        try:
            action()
        except Exception:  # noqa: BLE001 - a mistake of the lab's own: said in its log, and the lab lives on
            self._log(traceback.format_exc())

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._stop = True

    def run(self) -> None:
        """Serve until SIGTERM, SIGINT or the end of the owner."""
        while not self._stop:
            work = self._machine.next_work()
            timeout = None if work is None else max(0.0, work - time.monotonic())
            events = self._selector.select(timeout)
            if work is not None:
                self._machine.bury_the_dead()
                if not any(isinstance(key.data, Interface) for key, _mask in events):
                    self._carefully(
                        self._machine.carps.step
                    )  # what was sent before has arrived, and what it brought about is done
            for key, mask in events:
                if isinstance(key.data, Interface):
                    self._carefully(partial(carp.receive, key.data))
                elif isinstance(key.data, Devd):
                    with contextlib.suppress(OSError):  # it went away again
                        key.data.accept()
                elif key.data == "listener":
                    self._accept()
                elif key.data == "signal":
                    self._wakeup[0].recv(64)
                elif key.data == "owner":
                    self._stop = True  # nobody writes into that pipe: it is readable because its other end is closed
                else:
                    self._serve(key.data, mask)

    def close(self) -> None:
        """Kill every process in the lab's namespaces, and let go of them."""
        jails = self._machine.jails()
        processes.kill_in({jail.uts_inode for jail in jails}, {jail.vnet.namespace.inode for jail in jails})
        self._machine.close()

    def _accept(self) -> None:
        peer, _address = self._listener.accept()
        connection = Connection(peer)
        self._selector.register(peer, selectors.EVENT_READ, connection)

    def _serve(self, connection: Connection, mask: int) -> None:
        try:
            if mask & selectors.EVENT_READ:
                data = connection.socket.recv(65536)
                if not data:
                    self._forget(connection)
                    return
                connection.incoming += data
                for kind, payload in connection.frames():
                    self._handle(connection, kind, payload)
            if connection.outgoing:
                sent = connection.socket.send(connection.outgoing)
                del connection.outgoing[:sent]
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.outgoing else 0)
            self._selector.modify(connection.socket, wanted, connection)
        except BlockingIOError:
            self._selector.modify(connection.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, connection)
        except (ConnectionError, ValueError):
            self._forget(connection)  # it went away, or does not speak our language

    def _forget(self, connection: Connection) -> None:
        self._selector.unregister(connection.socket)
        connection.socket.close()

    def _handle(self, connection: Connection, kind: bytes, payload: bytes) -> None:
        jail = self._jail_of(connection.pid)
        if kind == b"c":
            arguments = [os.fsdecode(each) for each in payload.split(b"\0")[:-1]]
            self._command(connection, Caller(self._machine, jail, root=connection.uid == 0), arguments)
        elif kind == b"j":
            try:
                answer = self._call(jail, connection, json.loads(payload))
            except Refused as refused:
                answer = {"error": refused.message, "errno": refused.errno.name}
            except Exception as error:  # noqa: BLE001 - a mistake of the lab's own: loud at the caller, and the lab lives on
                self._log(traceback.format_exc())
                answer = {"error": f"lab kernel: {type(error).__name__}: {error}", "errno": "ELAB"}
            connection.answer(b"j", json.dumps(answer).encode())
        else:
            raise ValueError(f"a frame of kind {kind!r}")
        self._note_namespaces()

    def _command(self, connection: Connection, caller: Caller, arguments: list[str]) -> None:
        output = Output()
        order: Enter | Execute | None = None
        try:
            name = arguments[0]
            order = COMMANDS[name](arguments[1:], caller, output)
            code = 0
        except Exit as exit_:
            code = exit_.code
        except Exception as error:  # noqa: BLE001 - as above
            self._log(f"{arguments}\n{traceback.format_exc()}")
            output.err(f"lab kernel: {type(error).__name__}: {error} (see {self._directory}/kernel.log)\n")
            code = EX_SOFTWARE
        for stream, text in output.chunks:
            connection.answer(b"1" if stream == 1 else b"2", os.fsencode(text))
        if order is None:
            connection.answer(b"x", b"%d" % code)
        else:
            connection.answer(b"e", b"".join(os.fsencode(field) + b"\0" for field in self._order(order)))

    def _order(self, order: Enter | Execute) -> list[str]:
        """The fields of an `e` frame: namespaces, root and user to change to, whether the rest is a lab command."""
        if isinstance(order, Execute):
            return ["", "", "", "", "run", *order.arguments]
        net, uts = self.namespaces(order.jail)
        inside = order.arguments[:1] and order.lab
        return [net, uts, "" if inside else order.root, order.user, "lab" if inside else "run", *order.arguments]

    @staticmethod
    def namespaces(jail: Jail) -> tuple[str, str]:
        """Where a jail's namespaces can be opened: network, UTS."""
        return f"/proc/{os.getpid()}/fd/{jail.vnet.namespace.fd}", f"/proc/{os.getpid()}/fd/{jail.uts}"

    def _jail_of(self, pid: int) -> Jail:
        """The jail that a process is in, by its UTS namespace; one outside of the lab acts as the machine itself."""
        uts = processes.inode(pid, "uts")
        for jail in self._machine.jails():
            if jail.uts_inode == uts:
                return jail
        net = processes.inode(pid, "net")
        for jail in self._machine.jails():
            if jail.own_vnet and jail.vnet.namespace.inode == net:
                return jail
        return self._machine.root

    def _note_namespaces(self) -> None:
        made = self._machine.made
        if len(made) > self._written:
            with (self._directory / "namespaces").open("a") as file:
                file.write("".join(f"{number}\n" for number in made[self._written :]))
            self._written = len(made)

    def _log(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    # the JSON side

    def _call(self, caller: Jail, connection: Connection, request: dict[str, Any]) -> dict[str, Any]:
        """One call of client.Kernel; answers {"value": ...}. Refused with EPERM for anybody but root."""
        machine = self._machine
        name = request["call"]
        if connection.uid != 0 and name not in ("jails", "jail_get", "interfaces", "release"):
            raise Refused(Errno.EPERM)
        base = self._named(caller, request.get("parent", ""))
        jail_name = request.get("jail", "")
        value: Any = None
        if name == "jail_create":
            value = machine.create(base, {key: each or "" for key, each in request["parameters"].items()}).jid
        elif name == "jail_set":
            parameters = {key: each or "" for key, each in request["parameters"].items()}
            machine.change(machine.find(base, jail_name), parameters)
        elif name == "jail_remove":
            machine.remove(machine.find(base, jail_name))
        elif name == "jail_get":
            value = machine.parameters(machine.find(base, jail_name, dying=bool(request.get("dying"))), base)
        elif name == "jails":
            value = [machine.parameters(each, base) for each in machine.visible(base, dying=bool(request.get("dying")))]
        elif name == "vnet_move":
            machine.move_in(base, request["interface"], machine.find(base, jail_name))
        elif name == "vnet_return":
            machine.move_out(base, request["interface"], machine.find(base, jail_name))
        elif name == "namespaces":
            value = self.namespaces(self._named(base, jail_name))
        elif name == "interfaces":
            value = [_describe(each) for each in self._named(base, jail_name).vnet.interfaces]
        elif name in ("devd", "devd_stop", "devd_start"):
            devd = machine.devd_of(self._named(base, jail_name))
            if name == "devd_stop":
                self._unwatch_devd(devd)
                devd.stop()
            elif name == "devd_start" and devd.listener is None:
                devd.start()
                self._watch_devd(devd)
            value = str(devd.path)
        elif name == "link_state":
            found = self._named(base, jail_name).vnet.interface(request["interface"])
            if found is None:
                raise Refused(Errno.ENXIO)
            interfaces.set_carrier(found, bool(request["up"]))
        elif name == "pfsync":
            value = _pfsync(pfsync.pfsync_of(self._named(base, jail_name).vnet), request["action"], machine)
        elif name == "pace":
            if machine.carps.due() is not None:
                raise Refused(Errno.EBUSY, "CARP's pace is set before there is anything to do")
            machine.carps.pace = float(request["pace"])
        elif name == "carp":
            value = [_vhid(each) for every in self._named(base, jail_name).vnet.interfaces for each in every.carps]
        elif name == "release":
            kernel = machine.kernel
            value = {"name": kernel.name, "osrelease": kernel.osrelease, "osreldate": kernel.osreldate}
        elif name == "where":
            value = "" if caller is machine.root else caller.full_name(machine.root)
        else:
            raise Refused(Errno.EINVAL, f"the lab kernel has no call {name!r}")
        return {"value": value}

    def _named(self, base: Jail, name: str) -> Jail:
        return self._machine.find(base, name) if name else base


def _pfsync(softc: pfsync.Pfsync, action: str, machine: Machine) -> dict[str, Any]:
    """What a test says of bulk updates: "hold" them, "release" them, let one be "done", or "fail" for good; or "" to ask."""
    if action in ("hold", "release"):
        softc.held = action == "hold"
        pfsync.ask(softc, machine.vnets())
    elif action == "done":
        pfsync.complete(softc)
    elif action == "fail":
        pfsync.fail(softc)
    elif action:
        raise Refused(Errno.EINVAL, f"the lab's pfsync has no {action!r}")
    return {"ok": softc.ok, "waiting": softc.waiting, "tries": softc.tries, "held": softc.held}


def _vhid(each: carp.Carp) -> dict[str, Any]:
    return {
        "interface": each.interface.name,
        "vhid": each.vhid,
        "state": each.state,
        "advbase": each.advbase,
        "advskew": each.advskew,
        "addresses": [address.text() for address in each.addresses],
        "linux_name": f"carp{each.link}" if each.link else "",
    }


def _describe(interface: Interface) -> dict[str, Any]:
    return {
        "name": interface.name,
        "linux_name": interface.linux_name,
        "link": interface.link,
        "up": interface.up,
        "ether": interface.ether,
        "groups": interface.groups,
        "description": interface.description,
        "addresses": [f"{address.text()}/{address.prefix_length}" for address in interface.addresses],
    }
