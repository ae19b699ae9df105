"""README.md's commands, done: on lab hosts, with its own files, in its order. test_readme.py compares, and can write.

Only paths, the programs in the jail, ExaBGP's user, interface names of the pair and the time between looks are others here.
"""

from __future__ import annotations

import os
import pwd
import re
import select
import shlex
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.lab import pair as pairs
from tests.lab.faults import eventually, running, status_of_host
from tests.lab.invariants import await_rest
from tests.lab.managers import bastille_conf, bastille_home, iocage_home
from tests.lab.managers.bastille_scripts import Scripts
from tests.lab.managers.iocage_sequence import Sequence
from tests.lab.pair import Pair
from tests.lab.topology import EXABGP_USER, HOOK, REPOSITORY, Host, Lab
from tests.readme import DEPLOY, Step, Told, block, blocks, steps
from tests.readme_commands import Run, install_lines

INSTALLED_HOOK = "/usr/local/libexec/mobility/hook"
#: Where FreeBSD keeps the commands that the lab has in one folder.
HOMES = {"/sbin": ("ifconfig", "route", "sysctl"), "/usr/bin": ("netstat",), "/usr/sbin": ("jail", "jls", "jexec")}
#: The story asks for a look where it needs one.
LOOK_EVERY = 3600.0
DRAIN_FOR = 0.2
#: How often something is made to happen for a command that shows what happens, and for how long each time it is waited.
TRIES, TRY_SECONDS = 20, 1.0
#: What the last of it ends with.
WATCHED = {"watch": "announced\n", "status": "\n"}
#: The stories that are told on one lab, one after the other.
MANAGERS = ("bastille", "iocage")
#: The FreeBSD of the page's pair: its cable carries IPv6 only.
PAIR_KERNEL = "14"


def replaced(text: str, changes: dict[str, str]) -> str:
    """Return the text with everything in `changes` replaced, which all must be there."""
    for old, new in changes.items():
        assert old in text, f"no longer there: {old}"
        text = text.replace(old, new)
    return text


def as_installed(host: Host, text: str) -> str:
    """Return what was printed here in the words of an installed host."""
    (lab_bin,) = {path.parent for path in (Path(folder) / "jls" for folder in host.ground.commands) if path.exists()}
    changes = [(f"{lab_bin}/{name}", f"{home}/{name}") for home, names in HOMES.items() for name in names]
    changes += [
        (f"{HOOK} -c {host.config}", INSTALLED_HOOK),
        (str(HOOK), INSTALLED_HOOK),
        (str(host.config), "/usr/local/etc/mobility/mobility.toml"),
        (str(host.jails_d), "/usr/local/etc/mobility/jails.d"),
        (str(host.jail_conf), "/etc/jail.conf"),
        (str(host.folder / "state"), "/var/db/mobility"),
        (str(host.folder / "spool"), "/var/run/mobility/spool"),
        (str(host.run_folder), "/var/run/mobility"),
        (str(host.folder / "bastille"), "/usr/local/bastille"),
        (str(host.folder / "bastille-logs"), "/var/log/bastille"),
        (str(host.folder / "tank" / "iocage"), "/iocage"),
        ("a vnet of its own; /\n", "a vnet of its own; /jails/web1\n"),
        ("host name: localhost", f"host name: {host.name}"),
        (f"user {EXABGP_USER} may", "user exabgp may"),
        (", ".join(map(str, host.ground.commands)), "/sbin, /usr/sbin, /bin, /usr/bin"),
        (f"user {EXABGP_USER}: uid {pwd.getpwnam(EXABGP_USER).pw_uid}", "user exabgp: uid 1001"),
    ]
    for old, new in changes:
        text = text.replace(old, new)
    return text


def narrowed(text: str) -> str:
    """Return a table with FILE and NOTE at its end as wide as its paths are now, not as the lab's were."""
    head, *rows = text.splitlines()
    at = head.index("FILE")
    cells = [[line[:at], *re.split(" {2,}", line[at:].rstrip(), maxsplit=1)] for line in (head, *rows)]
    width = max(len(path) for _, path, *_ in cells)
    return "".join(f"{start}{path:{width}}  {''.join(note)}".rstrip() + "\n" for start, path, *note in cells)


class Story(ABC):
    """Commands of README.md, on a lab. `addresses` are those of the jails that it tells of."""

    addresses: dict[str, list[str]]

    def __init__(self, lab: Lab, page: str) -> None:
        self.lab = lab
        self.page = page
        self.addresses = {}
        self.hosts = {host.name: host for host in lab.hosts}
        self.here: dict[str, set[str]] = {host.name: set() for host in lab.hosts}

    def tell(self, name: str) -> list[Told]:
        """Do all that the console blocks of this name show; return each command with what it printed, block by block."""
        return [
            [(step, self.perform(step)) for step in self.prepared(each.start, each.text)]
            for each in blocks(self.page, "console")
            if each.name == name
        ]

    def prepared(self, start: int, text: str) -> list[Step]:
        """Return a block's commands, once the files that the page names before it are there."""
        for each in blocks(self.page, "toml"):
            jail = each.name.removeprefix("jails.d/").removesuffix(".toml")
            if each.name.startswith("jails.d/") and jail in self.addresses and each.start < start:
                for host in self.lab.hosts:
                    path = host.jails_d / f"{jail}.toml"
                    if not path.exists():
                        # whole at once: the agent reads it as soon as it is there
                        new = host.folder / path.name
                        new.write_text(each.text)
                        new.rename(path)
        return steps(text)

    def perform(self, step: Step) -> list[str]:
        """Do a step, wait until all is as it should be after it, and return the lines that it printed."""
        line, *filters = step.line.split(" | ")
        done = self.do(step.where, shlex.split(line))
        for each in filters:
            assert each.startswith("grep "), each
            done = subprocess.run(shlex.split(each), input=done.stdout, capture_output=True, text=True, check=False)
        text = done.stdout + done.stderr + (f"[exit {done.returncode}]\n" if done.returncode else "")
        if step.where in self.hosts:
            text = as_installed(self.hosts[step.where], text)
            if "hooks status" in step.line:
                text = narrowed(text)
        return [line for line in text.splitlines() if line or step.where == "client"]

    def inline(self, command: str, run: Run) -> None:
        """Do what stands in the text, and look at how it ends. AssertionError where that is not as it should be."""
        for line in run.before:
            self.do(run.where, shlex.split(line))
        done = self.do(run.where, shlex.split(run.line or command))
        assert done.returncode == run.status, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"

    def do(self, where: str, words: list[str]) -> subprocess.CompletedProcess[str]:
        """Do it."""
        if where == "client":
            return self.lab.client.run(words, check=False)
        if where in ("spine", "router"):
            assert words[0] == "birdc", words
            text = self.lab.spine.birdc(" ".join(words[1:]))
            return subprocess.CompletedProcess(words, 0, text, "")
        host = self.hosts[where]
        match words[0]:
            case "service" if words[1].startswith("mobility"):
                self.service(host, words[1:])
                return subprocess.CompletedProcess(words, 0, "", "")
            case "mobility":
                return self.mobility(host, words[1:])
            case "jail":
                return self.jail(host, words[1:])
            case "fetch":
                code = f"import urllib.request as r; print(r.urlopen({words[-1]!r}).read().decode())"
                return host.run([sys.executable, "-c", code], check=False)
        here = {
            "/var/db/mobility": str(host.folder / "state"),
            "/var/log/mobility.log": str(host.folder / "agent.log"),
            "tcpdump": "/usr/bin/tcpdump",
        }
        return host.run([here.get(word, word) for word in words], check=False)

    @abstractmethod
    def service(self, host: Host, words: list[str]) -> None:
        """What `service mobility start` and its like do: rc.d's own part is tests/unit/deploy/test_services.py's matter."""

    def mobility(self, host: Host, words: list[str]) -> subprocess.CompletedProcess[str]:
        """The `mobility` command, of which some forms compare with the program that is installed, or write it down."""
        if words[0] == "watch" or "--watch" in words:
            return self.watch(host, words)
        if words[0] == "completion":
            return host.run([sys.executable, "-m", "mobility", *words], check=False, cwd=REPOSITORY)
        program = ["--hook", str(HOOK)] if words[0] in ("doctor", "hooks") else []
        return host.mobility(*words, *program, check=False)

    def watch(self, host: Host, words: list[str]) -> subprocess.CompletedProcess[str]:
        """A command that goes on until it is interrupted: interrupt it, once it has shown something."""
        argv = [sys.executable, "-m", "mobility", words[0], "--config", str(host.config), *words[1:]]
        process = host.popen(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert process.stdout is not None
        said = ""
        for _ in range(TRIES):
            while not said.endswith(WATCHED[words[0]]) and select.select([process.stdout], [], [], TRY_SECONDS)[0]:
                said += os.read(process.stdout.fileno(), 1 << 16).decode()
            if words[0] != "watch" or " drain" in said:
                break
            # it tells of what comes after its first question, of which nobody tells us: again, until it was seen whole
            said = ""
            for verb in ("drain", "undrain"):
                host.mobility(verb, "web1")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert said, f"{words} showed nothing"
        return subprocess.CompletedProcess(words, process.returncode, said, "")

    def jail(self, host: Host, words: list[str]) -> subprocess.CompletedProcess[str]:
        """jail(8)."""
        return host.run(["jail", *words], check=False)


class Main(Story):
    """The blocks without a name: two hosts, a router, a client, a plain jail.conf."""

    def __init__(self, lab: Lab, page: str) -> None:
        super().__init__(lab, page)
        spine = (DEPLOY / "fabric" / "bird.conf").read_text()
        # its log is what tells the lab that a session is up
        heard = {"log syslog all;": "log stderr all;", "passive on;": "passive on; debug { states };"}
        lab.spine.configure(replaced(spine, heard))
        for jail in ("web1", "db1"):
            self.addresses[jail] = re.findall(r'"([0-9a-f.:]+)/', block(page, f"jails.d/{jail}.toml"))
        for host in lab.hosts:
            self.install(host)

    def install(self, host: Host) -> None:
        """Put README.md's files where this lab host has such files, and switch on what it switches on."""
        for line in install_lines(self.page):
            if line.split()[0] in ("kldload", "sysctl"):
                host.run(line.split())
        text = block(self.page, "mobility.toml")
        if host.name != "a":
            text = replaced(text, {'"a"': '"b"', "65001": "65002", "10.0.0.1": "10.0.0.2", "fd00:1::": "fd00:2::"})
        own = self.with_pf(host)
        sections = "".join(re.findall(r"^\[(?:paths|managers|hooks)\]\n(?:.+\n)+\n", own, re.MULTILINE))
        bgp = "".join(re.findall(r"^(?:exabgp|bridge_command) = .*\n", own, re.MULTILINE))
        ours = f'[agent]\nlook_every = {LOOK_EVERY}\ndrain_for = {DRAIN_FOR}\n\n{sections}[bgp]\nuser = "{EXABGP_USER}"\n{bgp}'
        host.config.write_text(replaced(text, {"[bgp]\n": ours}))

    def prepared(self, start: int, text: str) -> list[Step]:
        """Return a block's commands, once the files that the page names before it are there: jail.conf, too."""
        (conf,) = [each for each in blocks(self.page, "text") if each.name == "jail.conf"]
        for host in self.lab.hosts:
            if conf.start < start and not host.jail_conf.exists():
                host.jail_conf.write_text(self.jail_conf(host, conf.text))
        return super().prepared(start, text)

    def jail_conf(self, host: Host, text: str) -> str:
        """Return the page's jail.conf as this host can have it."""
        here = {
            'path = "/jails/$name";': 'path = "/"; persist;',
            "mount.devfs;": "",
            INSTALLED_HOOK: f"{HOOK} -c {host.config}",
            "/bin/sh /etc/rc.shutdown jail": "true",
            "/bin/sh /etc/rc": "true",
        }
        return replaced(text, here)

    def with_pf(self, host: Host) -> str:
        """Return the host's configuration with a folder more for commands: the reader has pf with the page's rules."""
        text = block(self.page, "pf.conf")
        # as pfctl(8) shows them (13-antispoof.txt)
        rules = replaced(text, {"fe80::/10 ": "fe80::/10 to any ", "urpf-failed": "urpf-failed to any"})
        programs = host.folder / "pf"
        programs.mkdir(exist_ok=True)
        (programs / "rules").write_text(rules)
        (programs / "pfctl").write_text(
            f"#!/bin/sh\ncase $* in '-s info') echo 'Status: Enabled';; -sr) cat {programs}/rules;; esac\n"
        )
        (programs / "pfctl").chmod(0o755)
        return replaced(host.config.read_text(), {"commands = [": f'commands = ["{programs}", '})

    def service(self, host: Host, words: list[str]) -> None:
        """Start, restart or reload, and wait until all is as it should be."""
        match words:
            case ["mobility_exabgp", "start"]:
                host.start_exabgp()
                return
            case ["mobility_exabgp", "restart"]:
                host.stop_exabgp()
                self.lab.await_session(host, up=False)
                host.start_exabgp()
                self.lab.await_session(host)
            case ["mobility", "start"]:
                host.start_agent()
                self.lab.await_session(host)
            case ["mobility", "restart"]:
                host.stop_agent()
                host.start_agent()
            case ["mobility", "reload"]:
                running(host).process.send_signal(signal.SIGHUP)
            case _:
                raise AssertionError(f"nobody has said what this does: service {words}")
        eventually(lambda: status_of_host(host)["sessions"][0]["state"] == "up", "session", host)
        self.rest(host)

    def mobility(self, host: Host, words: list[str]) -> subprocess.CompletedProcess[str]:
        """The `mobility` command; where it announces again, wait for that."""
        done = super().mobility(host, words)
        if words[0] in ("undrain", "release"):
            self.rest(host)
        return done

    def jail(self, host: Host, words: list[str]) -> subprocess.CompletedProcess[str]:
        """jail(8), and wait until the fabric knows."""
        here = [re.sub(r"^path=.*", "path=/", word) for word in words]
        done = host.run(["jail", "-f", host.jail_conf, *here])
        (name,) = set(self.addresses) & {word.removeprefix("name=") for word in words}
        if words[0] == "-r":
            self.here[host.name].discard(name)
        else:
            self.here[host.name].add(name)
        if f"name={name}" not in words:
            self.rest(host)
        return done

    def rest(self, host: Host) -> None:
        """Wait until a host's jails are announced, and nothing else is."""
        jails = {name: self.addresses[name] for name in self.here[host.name]}
        await_rest(self.lab, host, jails)
        told = sum(map(len, jails.values()))
        eventually(lambda: status_of_host(host)["rib"]["acknowledged"] == told, f"{told} routes", host)


class Managers(Story):
    """Bastille and iocage on one host: their own programs where they are given, else what plays them."""

    def __init__(self, lab: Lab, page: str, stack: ExitStack) -> None:
        super().__init__(lab, page)
        (host,) = lab.hosts
        tree = bastille_conf.source()
        self.bastille = stack.enter_context(Scripts(host, tree)) if tree else bastille_home.Home(host)
        self.iocage = iocage_home.Home(host)
        starter = iocage_home.Library if iocage_home.SOURCE else Sequence
        self.starter = starter(self.iocage)
        host.configure(
            managers={"bastille": str(self.bastille.prefix), "iocage": str(self.iocage.root), "jail_conf": ""},
            agent={"look_every": LOOK_EVERY},
        )
        # as `bastille create` and `iocage create` leave them: the commands are in the page
        where = self.bastille.where()
        kind = bastille_conf.BRIDGE
        text = (
            bastille_conf.vnet_conf_by(tree, "web2", kind, bastille_home.BRIDGE, **where)
            if tree
            else bastille_conf.vnet_conf("web2", kind, bastille_home.BRIDGE, **where)
        )
        self.bastille.put("web2", text, bastille_conf.rc_conf("e0b_web2", ipv4="inet 198.51.100.9/24"))
        self.iocage.create("web3", ("198.51.100.10",), ip4_addr="vnet0|198.51.100.10/32")
        self.addresses = {"web2": ["198.51.100.9", "2001:db8:7::9"], "ioc-web3": ["198.51.100.10"]}
        host.start_agent()
        host.start_exabgp()
        lab.await_session(host)

    def do(self, where: str, words: list[str]) -> subprocess.CompletedProcess[str]:
        """Do it; what a manager says itself is left out."""
        if words[0] not in MANAGERS:
            return super().do(where, words)
        program, verb, *options, name = words
        assert verb in ("start", "stop"), words
        jail = f"ioc-{name}" if program == "iocage" else name
        if program == "iocage":
            getattr(self.starter, verb)(name)
        elif isinstance(self.bastille, Scripts):
            self.bastille.bastille(verb, *options, name, check=not options)
        elif options:
            self.lab.hosts[0].run(["jail", "-R", name])
        else:
            getattr(self.bastille, verb)(name)
        (host,) = self.lab.hosts
        if options:
            running(host).process.send_signal(signal.SIGHUP)  # "at the agent's next look"
        await_rest(self.lab, host, {jail: self.addresses[jail]} if verb == "start" else {})
        told = len(self.addresses[jail]) if verb == "start" else 0
        eventually(lambda: status_of_host(host)["rib"]["acknowledged"] == told, f"{told} routes", host)
        return subprocess.CompletedProcess(words, 0, "", "")

    def mobility(self, host: Host, words: list[str]) -> subprocess.CompletedProcess[str]:
        """The `mobility` command; its hooks where mobility is installed, if Bastille's scripts have such a place."""
        if words[:1] == ["hooks"] and "bastille" in words and isinstance(self.bastille, Scripts):
            return subprocess.CompletedProcess(words, 0, self.bastille.hooks(*words[1:], check=False), "")
        return super().mobility(host, words)

    def service(self, host: Host, words: list[str]) -> None:
        """Nothing of it is told there."""
        raise AssertionError(f"nobody has said what this does: service {words}")


class Gateways(Story):
    """The CARP pair."""

    #: The page's interface, and the lab's.
    NAMES = (("ix1", pairs.LAN), ("ix2", pairs.SYNC))

    def __init__(self, pair: Pair, page: str) -> None:
        super().__init__(pair, page)
        self.pair = pair
        self.tied: set[str] = set()
        pair.carp()
        pair.pfsync()
        for host in pair.hosts:
            host.configure(peers=[host.peers[0] | {"hold_time": pairs.HOLD_TIME}])
            host.start_agent()
            host.start_exabgp()
        for host in pair.hosts:
            pair.await_session(host)
        self.settled("a")

    def do(self, where: str, words: list[str]) -> subprocess.CompletedProcess[str]:
        """Do it, with the interfaces that the lab has."""
        for page, lab in self.NAMES:
            words = [re.sub(rf"\b{page}\b", lab, word) for word in words]
        done = super().do(where, words)
        for page, lab in self.NAMES:
            done.stdout = re.sub(rf"\b{lab}\b", page, done.stdout)
        return done

    def service(self, host: Host, words: list[str]) -> None:
        """A restart takes up what the page has for mobility.toml (tests/unit/deploy/test_failover.py holds both together)."""
        assert words == ["mobility", "restart"], words
        host.stop_agent()
        self.pair.start_agents(host)
        self.tied.add(host.name)
        if len(self.tied) == len(self.pair.hosts):
            self.settled("a")

    def mobility(self, host: Host, words: list[str]) -> subprocess.CompletedProcess[str]:
        """The `mobility` command; where CARP follows, wait for that."""
        done = super().mobility(host, words)
        if words[0] in ("drain", "undrain"):
            other = self.pair.other(host)
            self.settled(host.name if words[0] == "undrain" else other.name)
        return done

    def settled(self, master: str) -> None:
        """Wait until this gateway is MASTER and preferred, the other one BACKUP."""
        host = self.hosts[master]
        self.pair.await_state(host, "MASTER")
        self.pair.await_state(self.pair.other(host), "BACKUP")
        if len(self.tied) == len(self.pair.hosts):
            self.pair.leads_to(host)
            for each in self.pair.hosts:
                told = len(pairs.LANS) * (each is host or not self.drained(each))
                eventually(lambda: status_of_host(each)["rib"]["acknowledged"] == told, f"{told} routes", each)  # noqa: B023

    def drained(self, host: Host) -> bool:
        """Tell whether a gateway is drained."""
        return bool(status_of_host(host)["drained"])


@contextmanager
def main(page: str) -> Iterator[Main]:
    """The main story's lab."""
    with Lab(hosts=2) as lab:
        yield Main(lab, page)


@contextmanager
def managers(page: str) -> Iterator[Managers]:
    """The managers' lab."""
    with Lab(hosts=1) as lab, ExitStack() as stack:
        yield Managers(lab, page, stack)


@contextmanager
def gateways(page: str) -> Iterator[Gateways]:
    """The pair's lab."""
    with Pair(PAIR_KERNEL) as pair:
        yield Gateways(pair, page)
