"""jail(8) with real processes in real jails; what 5-jail.txt shows is compared by the conformance run."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from tests.lab.kernel import client
from tests.lab.kernel.client import Kernel


def jail(machine: Kernel, conf: str, script: str, *, at: str = "", seconds: float = 30) -> str:
    """Write a jail.conf and run a piece of sh, in which J is `jail -f` with it; return all that was printed.

    Into a file, not a pipe: what runs on in a jail must not be waited for.
    """
    file = machine.directory / "jail.conf"
    file.write_text(conf)
    printed = machine.directory / "printed"
    with printed.open("w") as output:
        argv = ["sh", "-c", f"J='jail -f {file}'\n{script}"]
        machine.run(at, argv, timeout=seconds, capture_output=False, stdout=output, stderr=output)
    return printed.read_text(errors="surrogateescape")


def stubborn(machine: Kernel, trap: str) -> str:
    """Return an exec.start that leaves a process behind: it says its pid once it has set a trap for SIGTERM."""
    script = machine.directory / "stubborn"
    script.write_text(f"trap '{trap}' TERM\necho $$ >&3\nwhile :; do sleep 60 & wait; done\n")
    fifo = machine.directory / "fifo"
    return f"mkfifo {fifo}; sh {script} 3>{fifo} & head -n 1 {fifo}"


def runs(pid: int) -> bool:
    """Tell whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_commands_run_in_the_jail_or_on_the_host(machine: Kernel) -> None:
    conf = """
    web1 { path = /; vnet; persist; host.hostname = web1.example;
      exec.prestart = "echo prestart $(hostname) $(jls name)"; exec.created = "echo created $(hostname)";
      exec.start = "echo start $(hostname) $(ifconfig -l)"; exec.poststart = "echo poststart $(hostname)";
      exec.stop = "echo stop $(hostname)"; exec.poststop = "echo poststop $(jls name)"; }
    """.replace("$(", "\\$(")
    assert jail(machine, conf, "$J -q -c web1; $J -q -r web1").splitlines() == [
        "prestart lab",
        "created lab",
        "start web1.example lo0 pflog0 pfsync0",
        "poststart lab",
        "stop web1.example",
        "poststop",
    ]


def test_a_jail_in_a_host_jail(machine: Kernel) -> None:
    conf = "web1 { path = /; vnet; persist; exec.start = 'jls name; hostname'; host.hostname = inner; }"
    machine.run("", ["jail", "-c", "name=a", "path=/", "vnet", "persist", "children.max=3"], check=True)
    assert jail(machine, conf, "$J -c web1; jls name", at="a") == "web1: created\ninner\nweb1\n"
    assert machine.run("", ["jls", "name"]).stdout == "a\na.web1\n"


def test_stopping_ends_the_jails_processes_gently(machine: Kernel) -> None:
    conf = f'web1 {{ path = /; persist; exec.start = "{stubborn(machine, "echo term; exit")}"; }}'
    said = jail(machine, conf, "$J -q -c web1; $J -v -r web1")
    pid = int(said.splitlines()[0])
    assert re.search(rf"^web1: sent SIGTERM to:.* {pid}\b", said, re.MULTILINE)
    assert "\nterm\n" in said
    assert not runs(pid)


def test_what_ignores_sigterm_is_killed_after_stop_timeout(machine: Kernel) -> None:
    conf = f'web1 {{ path = /; persist; stop.timeout = 1; exec.start = "{stubborn(machine, "")}"; }}'
    begun = time.monotonic()
    pid = int(jail(machine, conf, "$J -q -c web1; $J -q -r web1").splitlines()[0])
    assert 1 <= time.monotonic() - begun < 10  # the default of stop.timeout (jail(8))
    assert not runs(pid)


def test_a_command_that_takes_too_long_fails_the_start_and_lives_on(machine: Kernel) -> None:
    conf = "web1 { path = /; persist; exec.timeout = 1; exec.prestart = 'sh -c \"echo \\$\\$; exec sleep 60\"'; }"
    said = jail(machine, conf.replace("\\$", "$"), "$J -c web1; echo status $?; jls name").splitlines()
    assert said[1:] == ['jail: web1: /bin/sh -c sh -c "echo $$; exec sleep 60": timed out', "status 1"]
    assert runs(int(said[0]))


def test_a_clean_environment(machine: Kernel) -> None:
    conf = "web1 { path = /; persist; exec.clean; exec.start = 'env | sort'; }"
    lines = jail(machine, conf, "FOREIGN=1; TERM=vt100; export FOREIGN TERM; $J -q -c web1").splitlines()
    assert "TERM=vt100" in lines
    assert "MAIL=/var/mail/root" in lines
    assert not [line for line in lines if line.startswith("FOREIGN")]
    path = next(line for line in lines if line.startswith("PATH="))
    assert path == f"PATH={machine.bin}:/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:/root/bin"


def test_an_unclean_environment_is_handed_on(machine: Kernel) -> None:
    conf = "web1 { path = /; persist; exec.start = 'env'; }"
    assert "OWN=1\n" in jail(machine, conf, "OWN=1; export OWN; $J -c web1")


def test_another_user(machine: Kernel) -> None:
    conf = "web1 { path = /; persist; exec.jail_user = nobody; exec.start = 'id -un'; exec.poststart = 'id -un'; }"
    assert jail(machine, conf, "$J -q -c web1") == "nobody\nroot\n"
    conf = "web2 { path = /; persist; exec.system_user = nosuch; exec.prestart = 'id -un'; }"
    assert jail(machine, conf, "$J -c web2") == "jail: web2: nosuch: no such user\njail: web2: id -un: failed\n"


def test_a_command_in_the_background_is_not_waited_for(machine: Kernel) -> None:
    conf = "web1 { path = /; persist; exec.start = 'sleep 60 &'; exec.poststart = 'echo poststart'; }"
    assert jail(machine, conf, "$J -q -c web1", seconds=20) == "poststart\n"


def test_the_root_is_the_jails_path(machine: Kernel) -> None:
    conf = "web1 { path = /usr; persist; exec.start = 'pwd; echo /*'; }"
    where, names = jail(machine, conf, "$J -q -c web1").splitlines()
    assert where == "/"
    assert "/bin" in names.split()
    assert "/usr" not in names.split()


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/nosuch", "path /nosuch: No such file or directory"),
        ("/bin/sh", "path /bin/sh: Not a directory"),
        ("relative", "path relative: not an absolute pathname"),
    ],
)
def test_a_path_that_is_none(machine: Kernel, path: str, problem: str) -> None:
    said = jail(machine, f"web1 {{ path = {path}; persist; exec.prestart = 'echo prestart'; }}", "$J -c web1; echo $?")
    assert said == f"prestart\njail: web1: {problem}\n1\n"


def test_a_parameter_that_the_kernel_does_not_know_stops_it_before_any_command(machine: Kernel) -> None:
    conf = "web1 { path = /; persist; nosuch = 1; exec.prestart = 'echo prestart'; }"
    assert jail(machine, conf, "$J -c web1; echo $?") == "jail: web1: unknown parameter: nosuch\n1\n"


def test_include_is_not_of_13_2(machine: Kernel) -> None:
    conf = ".include '/dev/null'; web1 { path = /; persist; }"
    assert jail(machine, conf, "$J -c web1") == "jail: web1: unknown parameter: .include\n"


def test_include_is_of_14(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.conf").write_text(f"{name} {{ persist; }}")
    with client.start(kernel="14") as machine:
        conf = f'path = /; .include "{tmp_path}/*.conf"; web1 {{ persist; }}'
        assert jail(machine, conf, "$J -q -c; jls name") == "a\nb\nweb1\n"
        (machine.directory / "more.conf").write_text('.include "nosuch.conf";')
        said = jail(machine, '.include "more.conf";', "$J -c x")
        assert said == f"jail: {machine.directory}/nosuch.conf: No such file or directory\n"


def test_what_the_lab_has_not_is_refused(machine: Kernel) -> None:
    conf = "web1 { path = /; persist; ip_hostname; exec.prestart = 'echo prestart'; }"
    assert jail(machine, conf, "$J -c web1; echo $?") == "jail: web1: ip_hostname: the lab has none of this\n1\n"


def test_an_fstab_must_be_there_and_does_nothing(machine: Kernel) -> None:
    conf = "web1 { path = /; persist; mount.fstab = /nosuch; }"
    said = "jail: web1: mount.fstab: /nosuch: No such file or directory\n"
    assert jail(machine, conf, "$J -c web1; jls name") == said
    conf = "web1 { path = /; persist; mount.fstab = /dev/null; mount.fdescfs; mount.procfs; exec.fib = 0; }"
    assert jail(machine, conf, "$J -c web1; jls name") == "web1: created\nweb1\n"


def test_only_one_fib(machine: Kernel) -> None:
    conf = "web1 { path = /; persist; exec.fib = 1; exec.start = true; }"
    assert jail(machine, conf, "$J -c web1; jls name").splitlines()[1:] == [
        "jail: web1: setfib: Invalid argument",
        "jail: web1: true: failed",
        "web1: removed",
    ]


def test_a_name_a_jid_and_a_change(machine: Kernel) -> None:
    assert jail(machine, "", "jail -i -n web1 -c path=/ persist; jls name") == "1\nweb1\n"
    assert jail(machine, "", "jail -m name=web1 allow.raw_sockets host.hostname=x; jls host.hostname") == "x\n"
    assert jail(machine, "", "jail -m name=nosuch persist; echo $?") == 'jail: "nosuch" not found\n1\n'


def test_a_jail_without_persist_goes_with_its_last_process(machine: Kernel) -> None:
    conf = "a { path = /; exec.start = true; } b { path = /; exec.start = 'sleep 60 >/dev/null 2>&1 &'; }"
    assert jail(machine, conf, "$J -q -c; jls name") == "b\n"


def test_all_jails_and_what_they_depend_on(machine: Kernel) -> None:
    conf = """
    path = /; persist; exec.prestart = "echo start ${name}"; exec.prestop = "echo stop ${name}";
    web { depend = db; } db { } other { }
    """
    assert jail(machine, conf, "$J -q -c web") == "start db\nstart web\n"
    assert jail(machine, conf, "$J -q -c") == "start other\n"
    assert jail(machine, conf, "$J -q -r db") == "stop web\nstop db\n"
    assert jail(machine, conf, "jail -R '*'; jls name") == "other: removed\n"


def test_a_dependency_that_fails(machine: Kernel) -> None:
    conf = "path = /; persist; web { depend = db; } db { exec.prestart = false; }"
    assert jail(machine, conf, "$J -c web; echo $?; jls name").splitlines() == [
        "jail: db: false: failed",
        "jail: web: skipped",
        "1",
    ]
    said = jail(machine, "path = /; web { depend = nosuch; }", "$J -c web")
    assert said == 'jail: web: depends on undefined jail "nosuch"\n'


def test_restart(machine: Kernel) -> None:
    conf = "web1 { path = /; persist; exec.start = 'echo start'; exec.stop = 'echo stop'; }"
    assert jail(machine, conf, "$J -q -c web1; $J -rc web1; jls name").splitlines() == [
        "start",
        "stop",
        "web1: removed",
        "web1: created",
        "start",
        "web1",
    ]


def test_a_failed_start_takes_its_interfaces_back(machine: Kernel) -> None:
    conf = """web1 { path = /; vnet; persist; vnet.interface = epair1b, epair2b; exec.start = false;
      exec.prestart = "ifconfig epair1 create; ifconfig epair2 create"; }"""
    said = jail(machine, conf, "$J -v -c web1 2>&1 | grep /sbin/ifconfig; ifconfig -l").splitlines()
    assert said == [
        "web1: run command: /sbin/ifconfig epair1b vnet web1",
        "web1: run command: /sbin/ifconfig epair2b vnet web1",
        "web1: run command: /sbin/ifconfig epair2b -vnet web1",
        "web1: run command: /sbin/ifconfig epair1b -vnet web1",
        "lo0 pflog0 pfsync0 epair1a epair2a epair2b epair1b",
    ]


def test_the_console_log(machine: Kernel, tmp_path: Path) -> None:
    log = tmp_path / "console"
    conf = (
        f"web1 {{ path = /; persist; exec.consolelog = {log}; exec.start = 'echo in'; exec.poststart = 'echo out'; }}"
    )
    assert jail(machine, conf, "$J -q -c web1") == "out\n"
    assert log.read_text() == "in\n"


def test_by_parameters_with_a_command(machine: Kernel) -> None:
    said = jail(machine, "", "jail -c name=x path=/ vnet host.hostname=x.example command=sh -c 'hostname; ifconfig -l'")
    assert said == "x.example\nlo0 pflog0 pfsync0\n"
    assert machine.run("", ["jls", "name"]).stdout == ""


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("jail -f /nosuch -c x", "jail: /nosuch: No such file or directory\n"),
        ("$J -c x", "jail: {file} line 1: }}: syntax error\n"),
        ("jail -u root -c name=x", "jail: the lab has no -u\n"),
    ],
)
def test_what_can_not_be_read(machine: Kernel, script: str, said: str) -> None:
    assert jail(machine, "x { a = }", f"{script}; echo $?") == said.format(file=machine.directory / "jail.conf") + "1\n"


@pytest.mark.parametrize("arguments", ["", "-c -R x", "-r", "-r name=x", "x y", "-Z"])
def test_usage(machine: Kernel, arguments: str) -> None:
    said = jail(machine, "", f"jail {arguments}; echo $?")
    assert "usage: jail [-dhilqv]" in said
    assert said.endswith("\n1\n")


def test_a_name_that_is_no_utf_8(machine: Kernel) -> None:
    name = os.fsdecode(b"a\xff")
    argv = ["jail", "-f", "-", "-c"]
    said = machine.run("", argv, input=f"'{name}b' {{ path = /; persist; }}", errors="surrogateescape")
    assert said.stdout == f"{name}b: created\n", said.stderr
    machine.run("", ["jail", "-R", f"{name}b"]).check_returncode()
    machine.run("", ["jail", "-c", f"name={name}", "path=/", "persist"]).check_returncode()
    assert machine.run("", ["jls", "name"], errors="surrogateescape").stdout == f"{name}\n"
