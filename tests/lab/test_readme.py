"""README.md, done: its own files on two lab hosts, its commands in its order, and what it shows for each.

Only paths, the programs in the jail, ExaBGP's user and the time between looks are others here. After a change of what
the program says:

    python -m tests.lab.test_readme      # writes what is printed now into README.md; read the difference
"""

from __future__ import annotations

import pwd
import re
import shlex
import signal
from pathlib import Path

from tests.lab.faults import eventually, running, status_of_host
from tests.lab.invariants import await_rest
from tests.lab.topology import EXABGP_USER, HOOK, Host, Lab
from tests.readme import DEPLOY, PATH, Step, block, blocks, masked, steps, written

INSTALLED_HOOK = "/usr/local/libexec/mobility/hook"
JAILS = {"web1": ("198.51.100.7", "2001:db8:7::7"), "db1": ("198.51.100.8", "2001:db8:7::8")}
#: Where FreeBSD keeps the commands that the lab has in one folder.
HOMES = {"/sbin": ("ifconfig", "route", "sysctl"), "/usr/bin": ("netstat",), "/usr/sbin": ("jail", "jls", "jexec")}
#: The story asks for a look where it needs one.
LOOK_EVERY = 3600.0


def replaced(text: str, changes: dict[str, str]) -> str:
    """Return the text with everything in `changes` replaced, which all must be there."""
    for old, new in changes.items():
        assert old in text, f"no longer there: {old}"
        text = text.replace(old, new)
    return text


def install(page: str, host: Host) -> None:
    """Put README.md's files where this lab host has such files."""
    text = block(page, "mobility.toml")
    if host.name != "a":
        text = replaced(text, {'"a"': '"b"', "65001": "65002", "10.0.0.1": "10.0.0.2", "fd00:1::": "fd00:2::"})
    own = with_pf(page, host)
    sections = "".join(re.findall(r"^\[(?:paths|managers|hooks)\]\n(?:.+\n)+\n", own, re.MULTILINE))
    bgp = "".join(re.findall(r"^(?:exabgp|bridge_command) = .*\n", own, re.MULTILINE))
    ours = f'[agent]\nlook_every = {LOOK_EVERY}\n\n{sections}[bgp]\nuser = "{EXABGP_USER}"\n{bgp}'
    host.config.write_text(replaced(text, {"[bgp]\n": ours}))
    for jail in JAILS:
        (host.jails_d / f"{jail}.toml").write_text(block(page, f"jails.d/{jail}.toml"))
    here = {
        'path = "/jails/$name";': 'path = "/"; persist;',
        "mount.devfs;": "",
        INSTALLED_HOOK: f"{HOOK} -c {host.config}",
        "/bin/sh /etc/rc.shutdown jail": "true",
        "/bin/sh /etc/rc": "true",
    }
    host.jail_conf.write_text(replaced(block(page, "jail.conf"), here))


def with_pf(page: str, host: Host) -> str:
    """Return the host's configuration with a folder more for commands: README.md's reader has its rules, a lab host no pf."""
    (text,) = [each.text for each in blocks(page, "text") if "urpf-failed" in each.text]
    rules = replaced(text, {"fe80::/10 ": "fe80::/10 to any ", "urpf-failed": "urpf-failed to any"})  # 13-antispoof.txt
    programs = host.folder / "pf"
    programs.mkdir(exist_ok=True)
    (programs / "rules").write_text(rules)
    (programs / "pfctl").write_text(
        f"#!/bin/sh\ncase $* in '-s info') echo 'Status: Enabled';; -sr) cat {programs}/rules;; esac\n"
    )
    (programs / "pfctl").chmod(0o755)
    return replaced(host.config.read_text(), {"commands = [": f'commands = ["{programs}", '})


def as_installed(host: Host, text: str) -> list[str]:
    """Return what was printed here in the words of an installed host."""
    (lab_bin,) = {path.parent for path in (Path(folder) / "jls" for folder in host.ground.commands) if path.exists()}
    changes = [(f"{lab_bin}/{name}", f"{home}/{name}") for home, names in HOMES.items() for name in names]
    changes += [
        (str(host.config), "/usr/local/etc/mobility/mobility.toml"),
        (str(host.jails_d), "/usr/local/etc/mobility/jails.d"),
        (str(host.folder / "state"), "/var/db/mobility"),
        (str(host.folder / "spool"), "/var/run/mobility/spool"),
        (str(host.run_folder), "/var/run/mobility"),
        ("host name: localhost", f"host name: {host.name}"),
        (f"user {EXABGP_USER} may", "user exabgp may"),
        (", ".join(map(str, host.ground.commands)), "/sbin, /usr/sbin, /bin, /usr/bin"),
        (f"user {EXABGP_USER}: uid {pwd.getpwnam(EXABGP_USER).pw_uid}", "user exabgp: uid 1001"),
    ]
    for old, new in changes:
        text = text.replace(old, new)
    return text.splitlines()


class Story:
    """The commands of README.md, on a lab."""

    def __init__(self, lab: Lab, page: str) -> None:
        self.lab = lab
        self.hosts = {host.name: host for host in lab.hosts}
        self.here: dict[str, set[str]] = {host.name: set() for host in lab.hosts}
        spine = (DEPLOY / "fabric" / "bird.conf").read_text()
        # its log is what tells the lab that a session is up
        heard = {"log syslog all;": "log stderr all;", "passive on;": "passive on; debug { states };"}
        lab.spine.configure(replaced(spine, heard))
        for host in lab.hosts:
            install(page, host)

    def perform(self, step: Step) -> list[str]:
        """Do a step, wait until all is as it should be after it, and return the lines that it printed."""
        words = shlex.split(step.line)
        if step.where == "client":
            return self.lab.client.run(words).stdout.splitlines()
        if step.where == "spine":
            assert words[0] == "birdc", step.line
            return [line for line in self.lab.spine.birdc(" ".join(words[1:])).splitlines() if line]
        host = self.hosts[step.where]
        do = {"service": self.service, "mobility": self.mobility, "jail": self.jail}[words[0]]
        return as_installed(host, do(host, words[1:]))

    def service(self, host: Host, words: list[str]) -> str:
        match words:
            case ["mobility_exabgp", "start"]:
                host.start_exabgp()
                return ""
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
        return ""

    def mobility(self, host: Host, words: list[str]) -> str:
        # doctor compares the hooks with the program that is installed
        program = ["--hook", str(HOOK)] if words == ["doctor"] else []
        result = host.mobility(*words, *program, check=False)
        if words == ["undrain"]:
            self.rest(host)
        return result.stdout + result.stderr + (f"[exit {result.returncode}]\n" if result.returncode else "")

    def jail(self, host: Host, words: list[str]) -> str:
        result = host.run(["jail", "-f", host.jail_conf, *(re.sub(r"^path=.*", "path=/", word) for word in words)])
        (name,) = set(JAILS) & {word.removeprefix("name=") for word in words}
        if words[0] == "-r":
            self.here[host.name].discard(name)
        else:
            self.here[host.name].add(name)
        if f"name={name}" not in words:
            self.rest(host)
        return result.stdout + result.stderr

    def rest(self, host: Host) -> None:
        jails = {name: JAILS[name] for name in self.here[host.name]}
        await_rest(self.lab, host, jails)
        told = 2 * len(jails)
        eventually(lambda: status_of_host(host)["rib"]["acknowledged"] == told, f"{told} routes", host)


def tell(lab: Lab, page: str) -> list[tuple[Step, list[str]]]:
    """Do everything that README.md shows; return each command with what it printed."""
    story = Story(lab, page)
    return [(step, story.perform(step)) for each in blocks(page, "console") for step in steps(each.text)]


def test_what_it_shows_is_what_happens(lab: Lab) -> None:
    for step, printed in tell(lab, PATH.read_text()):
        assert masked(step.shown) == masked(printed), f"{step.where}# {step.line}"


if __name__ == "__main__":
    with Lab(hosts=2) as whole:
        told = tell(whole, PATH.read_text())
    PATH.write_text(written(PATH.read_text(), [printed for _, printed in told]))
