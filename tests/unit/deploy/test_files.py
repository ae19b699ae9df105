"""What deploy/freebsd installs beside the services and the manual, and the port that packs it all."""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

from mobility import config
from mobility.network import naming
from tests.readme import DEPLOY, REPOSITORY

FREEBSD = DEPLOY / "freebsd"
PORT = FREEBSD / "port" / "net-mgmt" / "mobility"
MAKES = [name for name in ("make", "bmake") if shutil.which(name)]
RECORDED = REPOSITORY / "tests" / "lab" / "transcripts" / "freebsd-13.2"
PLIST_SAMPLE = re.compile(r"^@sample(?:\(,,(\d+)\))? (.+)$")


def staged(folder: Path, *, make: str = "make", target: str = "stage", prefix: str = "/usr/local") -> set[str]:
    """Install into a folder; return the files, and the folders that are empty, below the prefix."""
    subprocess.run(
        [make, "-s", "-C", FREEBSD, target, f"DESTDIR={folder}", f"PREFIX={prefix}"], check=True, capture_output=True
    )
    below = folder / prefix.lstrip("/")
    return {
        f"{path.relative_to(below)}" + ("/" if path.is_dir() else "")
        for path in below.rglob("*")
        if not path.is_dir() or not any(path.iterdir())
    }


def plist() -> dict[str, str]:
    """Return what the packing list names: files, or folders with a slash, and the mode where it says one."""
    found = {}
    for line in (PORT / "pkg-plist").read_text().replace("%%ETCDIR%%", "etc/mobility").splitlines():
        if sample := PLIST_SAMPLE.match(line):
            found[sample[2]] = sample[1] or ""
        elif line.startswith("@dir "):
            found[f"{line.removeprefix('@dir ')}/"] = ""
        else:
            assert not line.startswith("@"), line
            found[line.removesuffix(".gz")] = ""  # bsd.port.mk compresses the manual
    return found


# -- installing


@pytest.mark.parametrize("make", MAKES)
def test_the_packing_list_names_all_that_is_staged_and_nothing_else(tmp_path: Path, make: str) -> None:
    listed = plist()
    found = staged(tmp_path, make=make)
    examples = {name for name in found if name.startswith("share/examples/mobility/")}
    assert len(examples) >= 5  # PORTEXAMPLES lists them
    # the port itself makes this link to what the wheel installs
    assert found - examples == set(listed) - {"sbin/mobility"}
    for name, mode in listed.items():
        if mode:
            assert stat.S_IMODE((tmp_path / "usr/local" / name).stat().st_mode) == int(mode, 8)


def test_nobody_may_read_the_configuration_even_while_it_is_made(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        staged(tmp_path, target="install")
    finally:
        os.umask(mask)
    for path in (tmp_path / "usr/local/etc/mobility").glob("mobility.toml*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for path in tmp_path.rglob("*"):
        assert not path.stat().st_mode & 0o022, path


def test_an_installation_keeps_what_is_there(tmp_path: Path) -> None:
    staged(tmp_path, target="install")
    mine = tmp_path / "usr/local/etc/mobility/mobility.toml"
    config.load(mine)
    mine.write_text("mine")
    found = staged(tmp_path, target="install")
    assert mine.read_text() == "mine"
    for name in ("mobility", "mobility_drain", "mobility_exabgp"):
        assert f"etc/rc.d/{name}" in found
        assert os.access(tmp_path / "usr/local/etc/rc.d" / name, os.X_OK)
    assert os.access(tmp_path / "usr/local/libexec/mobility/hook", os.X_OK)
    for folder in ("devd", "syslog.d", "newsyslog.conf.d"):
        assert f"etc/{folder}/mobility.conf" in found


def test_another_prefix_reaches_every_file(tmp_path: Path) -> None:
    for name in staged(tmp_path, target="install", prefix="/opt/mobile"):
        path = tmp_path / "opt/mobile" / name
        assert path.is_dir() or "/usr/local" not in path.read_text(), name
    subprocess.run(["sh", "-n", tmp_path / "opt/mobile/libexec/mobility/hook"], check=True)


# -- the port

#: In the place of the ports tree: what the Makefile sets is printed, and what it would run.
BSD_PORT_MK = """
PREFIX?= /usr/local
.for name in LOCALBASE
${name}?= /usr/local
.endfor
PYTHON_PKGNAMEPREFIX= py311-
PY_FLAVOR= py311
STAGEDIR= /stage
WRKSRC= /work
EXAMPLESDIR= ${PREFIX}/share/examples/${PORTNAME}
MAKE_CMD= make
MKDIR= mkdir -p
RLN= ln -s
RM= rm -f
REINPLACE_CMD= sed -i.bak
show:
.for name in PORTNAME DISTVERSION CATEGORIES COMMENT MAINTAINER LICENSE LICENSE_FILE BUILD_DEPENDS RUN_DEPENDS USES \\
    USE_PYTHON USE_RC_SUBR SUB_FILES USERS GROUPS OPTIONS_DEFINE PORTEXAMPLES NO_ARCH
\t@echo '${name}=${${name}}'
.endfor
"""


def bmake(folder: Path, *arguments: str) -> str:
    (folder / "bsd.port.mk").write_text(BSD_PORT_MK)
    run = subprocess.run(
        ["bmake", "-r", "-m", folder, "-C", PORT, *arguments], capture_output=True, text=True, check=False, cwd=PORT
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def variables(folder: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in bmake(folder, "show").splitlines() if re.match("[A-Z_]+=", line))


needs_bmake = pytest.mark.skipif("bmake" not in MAKES, reason="needs bmake")


@needs_bmake
def test_the_port_needs_what_the_package_needs(tmp_path: Path) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    port = variables(tmp_path)
    assert (port["PORTNAME"], port["DISTVERSION"]) == (project["name"], project["version"])
    wanted = {re.sub(r"[<>=,].*", "", each): each for each in project["dependencies"]}
    found = {}
    for each in port["RUN_DEPENDS"].split():
        package, origin = each.split(":")
        name, versions = re.fullmatch(r"py311-([a-z0-9-]+?)([<>=].*)", package).groups()  # type: ignore[union-attr]
        assert re.fullmatch(r"[a-z-]+/(py-)?" + name + "@py311", origin)
        found[name] = name + versions
    assert found.pop("sqlite3") == "sqlite3>=0"  # of Python itself, a port of its own in FreeBSD
    assert found == {name: each.replace(",", "") for name, each in wanted.items()}
    (backend,) = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["build-system"]["requires"]
    assert f"py311-{backend}>=0:devel/py-{backend}@py311" == port["BUILD_DEPENDS"]
    minimum = project["requires-python"].removeprefix(">=")
    assert f"python:{minimum}+" in port["USES"].split()
    assert {"autoplist", "pep517"} <= set(port["USE_PYTHON"].split())
    # the licence, in the ports' spelling
    assert port["LICENSE"].replace("BSD2CLAUSE", "BSD-2-Clause") == project["license"]
    assert (REPOSITORY / port["LICENSE_FILE"].removeprefix("/work/")).exists()


@needs_bmake
def test_the_port_is_written_as_the_porters_handbook_asks(tmp_path: Path) -> None:
    port = variables(tmp_path)
    # 5.8: a COMMENT does not begin with an article, does not end in a full stop, and is short
    assert len(port["COMMENT"]) <= 70
    assert not re.match(r"(?i)an? |the ", port["COMMENT"])
    assert port["COMMENT"][0].isupper()
    assert not port["COMMENT"].endswith(".")
    descr = (PORT / "pkg-descr").read_text()
    assert max(map(len, descr.splitlines())) <= 80
    assert descr.endswith("\n")
    assert "WWW:" not in descr  # it stands in the Makefile, since 2022
    text = (PORT / "Makefile").read_text()
    assert text.endswith("\n.include <bsd.port.mk>\n")
    order = [
        "PORTNAME",
        "DISTVERSION",
        "CATEGORIES",
        "MASTER_SITES",
        "MAINTAINER",
        "COMMENT",
        "LICENSE",
        "LICENSE_FILE",
    ]
    order += [
        "BUILD_DEPENDS",
        "RUN_DEPENDS",
        "USES",
        "USE_PYTHON",
        "USE_RC_SUBR",
        "NO_ARCH",
        "SUB_FILES",
        "USERS",
        "GROUPS",
    ]
    order += ["PORTEXAMPLES", "OPTIONS_DEFINE"]
    assert re.findall(r"^([A-Z_]+)=\t", text, re.MULTILINE) == order  # 16: the order of variables
    for line in text.splitlines():
        assert line == line.rstrip()
        assert not line.startswith(" ")


@needs_bmake
def test_services_and_messages_of_the_port_are_there(tmp_path: Path) -> None:
    port = variables(tmp_path)
    assert port["USE_RC_SUBR"].split() == sorted(path.name for path in (FREEBSD / "rc.d").iterdir())
    needed = {f"{name}.in" for name in (*port["USE_RC_SUBR"].split(), *port["SUB_FILES"].split())}
    assert {path.name for path in (PORT / "files").iterdir()} == needed
    # a checksum of a distfile that nobody can fetch would be a lie
    assert not (PORT / "distinfo").exists()


@pytest.mark.parametrize("service", sorted((FREEBSD / "rc.d").iterdir()), ids=lambda path: path.name)
def test_the_ports_services_are_ours(service: Path) -> None:
    # after a change: see the README beside the port
    expected = service.read_text().replace("/usr/local", "%%PREFIX%%")
    assert (PORT / "files" / f"{service.name}.in").read_text() == expected


@needs_bmake
def test_the_ports_own_commands_do_what_they_are_for(tmp_path: Path) -> None:
    """They are run on a copy of the sources, into a stage."""
    work, stage = tmp_path / "work", tmp_path / "stage"
    ignore = shutil.ignore_patterns(".*", "build", "__pycache__", "tests")
    shutil.copytree(REPOSITORY, work, ignore=ignore)
    (stage / "opt/x/bin").mkdir(parents=True)
    (stage / "opt/x/bin/mobility").touch()
    places = [f"WRKSRC={work}", f"STAGEDIR={stage}", "PREFIX=/opt/x"]
    bmake(tmp_path, "post-patch", "post-install", *places)
    # `ln -s` stands for RLN, which makes it relative
    assert {name for name in plist() if not (stage / "opt/x" / name).exists()} <= {"sbin/mobility"}
    assert (stage / "opt/x/sbin/mobility").is_symlink()
    sample = (stage / "opt/x/etc/mobility/mobility.toml.sample").read_text()
    assert tomllib.loads(sample)["bgp"]["user"] == "_bgpd"
    for name in ("config.py", "hooks/edit.py"):
        assert "/usr/local" not in (work / "mobility" / name).read_text()
    bmake(tmp_path, "post-install-EXAMPLES-off", *places)
    assert not (stage / "opt/x/share/examples/mobility").exists()


def test_the_message_names_commands_and_files_that_exist() -> None:
    text = (PORT / "files" / "pkg-message.in").read_text()
    assert text.count("<<EOM") == text.count("\nEOM\n") == 2
    assert set(re.findall(r"service (mobility\w*)", text)) <= {path.name for path in (FREEBSD / "rc.d").iterdir()}
    for variable in re.findall(r"(\w+)=YES", text):
        assert f'{variable}="YES"' in (FREEBSD / "rc.conf.sample").read_text()
    assert max(map(len, text.splitlines())) <= 80


# -- logs


def test_the_log_that_is_written_is_the_one_that_is_turned() -> None:
    syslog = (FREEBSD / "syslog.d" / "mobility.conf").read_text()
    newsyslog = (FREEBSD / "newsyslog.conf.d" / "mobility.conf").read_text()
    (log,) = re.findall(r"^\*\.\*\s+(\S+)$", syslog, re.MULTILINE)
    # newsyslog.conf(5): name, mode, count, size, when, flags; C: make it where it is not there
    (line,) = [line.split() for line in newsyslog.splitlines() if not line.startswith("#")]
    assert line[0] == log
    assert "C" in line[-1]
    assert len(line) == 6
    # daemon(8)'s tags: what the services say goes there, by its program's name
    tags = {path.name for path in (FREEBSD / "rc.d").iterdir() if "-T $name" in path.read_text()}
    assert f"!{','.join(sorted(tags))}\n" in syslog
    assert syslog.endswith("!*\n")  # the files that syslogd reads after this one are not ours


# -- devd, pf, sysctl


def test_devd_asks_for_the_loss_of_our_interfaces_and_pokes_the_agent() -> None:
    text = (FREEBSD / "devd" / "mobility.conf").read_text()
    matches = dict(re.findall(r'^\tmatch "(\w+)"\s+"(.+)";$', text, re.MULTILINE))
    # as devd was told on a FreeBSD 13.2: !system=IFNET subsystem=xa type=DETACH
    recorded = (RECORDED / "6-carp.txt").read_text()
    assert re.search(rf"^!system={matches['system']} subsystem=\S+ type={matches['type']}$", recorded, re.MULTILINE)
    # devd.conf(5): a pattern must match the whole
    for jail in ("web1", "a.very-long.name-of-a-jail"):
        assert re.fullmatch(matches["subsystem"], naming.outer_name(jail))
    assert not re.fullmatch(matches["subsystem"], naming.inner_name("web1"))
    (action,) = re.findall(r'^\taction "(.+)";$', text, re.MULTILINE)
    words = action.split()
    assert words[:4] == ["/bin/pkill", "-HUP", "-L", "-F"]
    minimal = tomllib.loads((DEPLOY / "mobility.toml.sample").read_text())
    loaded, problems = config.parse(minimal, Path("mobility.toml"))
    assert not problems
    assert words[4] == f"{loaded.paths.run}/agent.pid"


def test_the_lines_against_spoofing_are_those_that_were_tried() -> None:
    lines = [
        line for line in (FREEBSD / "pf.conf.sample").read_text().splitlines() if line and not line.startswith("#")
    ]
    recorded = (RECORDED / "13-antispoof.txt").read_text()
    tried = re.findall(rf"^((?:pass|block) .*on {naming.GROUP} .*[^\n]$)", recorded, re.MULTILINE)
    tried = [line for line in tried if "to any" not in line]  # as typed, not as pfctl shows them
    assert len(tried) == 2
    at = lines.index(tried[0])
    assert lines[at : at + 2] == tried
    # and nothing of ours lets a jail's packet in before them
    assert not [line for line in lines[:at] if line.startswith("pass")]
    assert f"pass in quick on {naming.GROUP} inet6 from fe80::/10 no state\n" in (REPOSITORY / "README.md").read_text()


def test_the_samples_of_pf_and_mobility_are_of_one_host() -> None:
    data = tomllib.loads((DEPLOY / "mobility.toml.sample").read_text())
    text = (FREEBSD / "pf.conf.sample").read_text()
    (routers,) = re.findall(r"^table <routers> const \{ (\S+) \}$", text, re.MULTILINE)
    assert ipaddress.ip_address(routers) == ipaddress.ip_address(data["bgp"]["peer"][0]["address"])
    for prefix in data["host"]["allowed"]:
        assert prefix in text


@pytest.mark.parametrize("name", ["sysctl.conf.sample", "rc.conf.sample", "loader.conf.sample"])
def test_each_setting_of_the_system_has_its_reason(name: str) -> None:
    text = (FREEBSD / name).read_text()
    for paragraph in text.strip().split("\n\n"):
        lines = paragraph.splitlines()
        assert lines[0].startswith("# "), paragraph
        for line in lines:
            assert re.fullmatch(r"# .*|#|#?[a-z0-9_.]+=\S+", line), line


def test_forwarding_is_left_to_rc_conf() -> None:
    """rc.d/routing sets both sysctls from rc.conf, to 0 where it says nothing (libexec/rc/rc.d/routing, options_inet)."""
    settings = (FREEBSD / "rc.conf.sample").read_text()
    assert '\ngateway_enable="YES"\n' in settings
    assert '\nipv6_gateway_enable="YES"\n' in settings
    assert not re.search(r"^[^#]*forwarding", (FREEBSD / "sysctl.conf.sample").read_text(), re.MULTILINE)


def test_what_a_real_kernel_does_not_have_is_not_set() -> None:
    """13.2 has no net.link.epair at all: the queue limit of bug 227100 is gone."""
    recorded = (RECORDED / "15-host.txt").read_text()
    assert "net.link.ifqmaxlen" in recorded
    assert "net.link.epair" not in recorded
    for path in FREEBSD.glob("*.sample"):
        assert not re.search(r"^[^#]*net\.link\.epair", path.read_text(), re.MULTILINE)
