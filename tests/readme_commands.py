"""The commands of README.md: what runs each of them. tests/unit/test_readme.py fails for one that nothing runs.

A command is a line of a `console` or `sh` block, or a code span in the text that begins with a program's name and has
more words. Those in blocks are told as a story (tests/lab/story.py, tests/interop/test_readme.py, and the installation in
tests/unit/test_readme.py). A span that is no line of a block stands in one of the tables below.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.readme import blocks, steps

_PROGRAMS = """
    bastille bgpctl bgpd bird birdc bsdinstall cat chmod cp curl df fetch gobgp gobgpd grep id ifconfig iocage ip jail jexec
    jls kldload kldstat kill ln ls make mobility mount netstat newsyslog pfctl ping pip pkg promtool ps pw python python3.11
    route service setkey sh sockstat sqlite3 sysctl sysrc tail tcpdump top vtysh zfs
"""
#: Programs whose commands the page has.
PROGRAMS = frozenset(_PROGRAMS.split())
_SPAN = re.compile(r"`([^`]+)`")
_SETTING = re.compile(r"[\w.-]+ = .*")
_WORD = re.compile(r"[a-z/.][\w./+-]*")


@dataclass(frozen=True)
class Run:
    """How a command of the text is run: its line with placeholders filled, where, the status that it ends with, what before."""

    line: str = ""
    where: str = "a"
    status: int = 0
    before: tuple[str, ...] = ()


INLINE: dict[str, dict[str, Run]] = {
    "": {
        "mobility status NAME": Run("mobility status web1"),
        "mobility status [NAME...]": Run("mobility status web1"),
        "mobility status --json": Run(),
        "mobility status [--running] [--dark] [--state STATE] [--sort]": Run("mobility status --running --sort since"),
        "mobility status --watch [SECONDS]": Run("mobility status --watch 1"),
        "mobility status --dark": Run(),
        "mobility status --dark --sort state": Run(),
        "mobility status 'web*'": Run(),
        "mobility explain NAME": Run("mobility explain web1"),
        "mobility history --what flapped": Run(),
        "mobility history NAME": Run("mobility history web1"),
        "mobility history [NAME] [--since WHEN] [--what WHAT] [-n N]": Run("mobility history web1 --since 1h -n 5"),
        "mobility watch [NAME...]": Run("mobility watch web1"),
        "mobility top [--window TIME] [--sort] [--every SECONDS] [-n N]": Run("mobility top --window 1h -n 1"),
        "mobility completion SHELL": Run("mobility completion fish"),
        "mobility plan [NAME...]": Run("mobility plan db1"),
        "mobility events [NAME] [-n N]": Run("mobility events web1 -n 5"),
        "mobility reload": Run(),
        "mobility drain web1": Run(),
        "mobility drain [NAME...]": Run("mobility drain web1"),
        "mobility undrain [NAME...]": Run("mobility undrain web1"),
        "mobility drain --until-boot": Run(),
        "mobility drain --until-boot [--within SECONDS]": Run("mobility drain --until-boot --within 20"),
        "mobility undrain --until-boot": Run(),
        "mobility handoff [--cancel] NAME...": Run("mobility handoff web1"),
        "mobility handoff --cancel web1": Run(before=("mobility handoff web1",)),
        # host a has it, and does not hand it over
        "mobility expect [--within SECONDS] NAME": Run("mobility expect --within 1 web1", "b", status=1),
        "mobility release NAME": Run("mobility release web1"),
        "mobility release NAME...": Run("mobility release web1"),
        "mobility hooks ACTION MANAGER [NAME...]": Run("mobility hooks status jail.conf"),
        "mobility hooks install MANAGER NAME": Run("mobility hooks install jail.conf web1"),
        "mobility hooks install jail.conf web1": Run(),
        "mobility hooks status jail.conf": Run(),
        "service mobility_exabgp restart": Run(),
        "df /var/db/mobility": Run(),
        "grep event=web1.created.27503.0 /var/log/mobility.log": Run("grep event=web1.created. /var/log/mobility.log"),
        "ifconfig mob-NAME": Run("ifconfig mob-web1"),
        "jexec NAME ifconfig": Run("jexec web1 ifconfig"),
        "kldload if_epair": Run(status=1),  # it is there already, as the lab's command says
        "kldstat -m if_epair": Run(),
        "netstat -rn": Run(),
        "sysctl net.inet.carp.preempt": Run(),
        "sysctl net.inet.ip.forwarding net.inet6.ip6.forwarding": Run(),
        # of other addresses than those that the agent has routed already
        "route add -host 198.51.100.7 -inet6 fe80::2%mob-web1": Run(
            "route add -host 198.51.100.77 -inet6 fe80::2%mob-web1"
        ),
        "route -6 add -host 2001:db8:7::7 -interface mob-web1": Run(
            "route -6 add -host 2001:db8:7::77 -interface mob-web1"
        ),
        "route -n -6 add -net 64:ff9b::/96 ::1 -reject": Run(
            "jexec web1 route -n -6 add -net 64:ff9b::/96 ::1 -reject"
        ),
        "route -n -6 delete -net 64:ff9b::/96 ::1": Run("jexec web1 route -n -6 delete -net 64:ff9b::/96 ::1"),
        "route -n -6 add -host ADDRESS fe80::1%in-NAME": Run(
            "jexec web1 route -n -6 add -host 2001:db8:7::5 fe80::1%in-web1"
        ),
        "service netif restart": Run("jexec web1 service netif restart"),
    },
    "bastille": {
        "bastille stop -f web2": Run(before=("mobility hooks install bastille web2", "bastille start web2")),
        "mobility hooks install bastille --adopt web2": Run(),
        "mobility hooks remove MANAGER NAME": Run("mobility hooks remove bastille web2"),
    },
    "iocage": {},
    "pair": {
        "ifconfig -a": Run(),
        "ifconfig pfsync0": Run(),
        "tcpdump -c 1 -i ix1 carp": Run(),
    },
    "bird": {
        "birdc show protocols": Run(),
        "birdc reload in host_a": Run(),
    },
    "frr": {},
    "openbgpd": {},
    "gobgp": {
        "gobgp neighbor fd00:1::1 disable": Run(),
        "gobgp neighbor fd00:1::1 enable": Run(),
        "gobgp neighbor fd00:1::1 reset": Run(),
    },
}
"""Commands that are run at the end of a story, by the name of its blocks, in this order; not again what a block has run."""

_FABRIC = "tests/unit/deploy/test_fabric.py::test_the_router_reads_its_file"
_KERNELS = "tests/lab/test_kinds.py::test_what_the_kernel_can_is_what_is_used"
_RC = "tests/unit/deploy/test_services.py::test_"
ELSEWHERE: dict[str, str] = {
    "bastille migrate": "tests/lab/managers/test_bastille_scripts.py::test_migrate",
    "bgpd -n -f openbgpd.conf": _FABRIC,
    "bird -p -c bird.conf": _FABRIC,
    "gobgpd --dry-run -f gobgpd.toml": _FABRIC,
    "ifconfig ... create": "tests/lab/managers/test_jailconf.py::test_a_users_own_interface_is_adopted",
    "ifconfig -j": _KERNELS,
    "jail -R": "tests/lab/test_main_job.py::test_killed_behind_our_back",
    "jexec -l": "tests/lab/test_health.py::test_a_command_in_the_jail_decides_and_one_that_hangs_delays_nobody",
    "make bench": "tests/lab/test_bench.py::test_the_bench_at_scale_in_small",
    "make clean": "tests/lab/test_cleanup.py::test_after_kill_9_of_the_runner_and_the_kernel_make_clean_does",
    "make conformance": "tests/lab/test_conformance.py::test_the_recordings_and_cases_answer_as_freebsd_did",
    "make demo": "tests/lab/test_demo.py::test_the_demo_ends_well_and_prints_what_the_page_shows",
    "mobility agent": f"{_RC}daemon_is_told_to_run_a_command_that_exists",
    "mobility bridge": "tests/interop/test_exabgp_bird.py::test_bridge_killed_nothing_changes_and_nothing_is_forgotten",
    "mobility exabgp": f"{_RC}daemon_is_told_to_run_a_command_that_exists",
    "netstat -j": _KERNELS,
    "promtool test rules": "tests/unit/deploy/test_prometheus.py::test_alerts_fire_when_they_should_and_are_silent_when_not",
    "python -m deploy.grafana.alerts": "tests/unit/deploy/test_grafana.py::test_the_rules_are_what_their_source_makes",
    "python -m deploy.grafana.dashboards": "tests/unit/deploy/test_grafana.py::test_each_dashboard_is_what_its_source_makes",
    "python -m tests.interop.matrix": "tests/interop/test_matrix.py::test_the_table_gives_each_reason_once",
    "python -m tests.metrics_table": "tests/unit/test_readme.py::test_its_tables_of_metrics_are_what_the_agent_counts",
    "python -m tests.readme_tables": "tests/unit/test_readme.py::test_the_table_is_the_one_that_the_program_makes",
    "route -j": _KERNELS,
    "route change -reject": "tests/lab/test_traps.py::test_change_to_reject_loops_on_lo0",
    "service mobility status": f"{_RC}a_start_judges_the_configuration_loads_the_module_and_waits_for_the_agent",
    "service mobility_exabgp status": f"{_RC}a_start_judges_the_configuration_loads_the_module_and_waits_for_the_agent",
    "sh -n": f"{_RC}a_service_is_a_script",
    "sysctl net.inet.carp.demotion=240": "tests/lab/test_bench.py::test_the_bench_of_failover_in_small",
    "sysrc -x defaultrouter ipv6_defaultrouter": "tests/unit/test_readme.py::test_what_it_sets_and_unsets_at_boot",
    "vtysh -C -f frr.conf": _FABRIC,
}
"""Commands that another test runs: its file and its name."""

_PART = "`make test` is made of it, or runs the same folder with pytest"
NOT_RUN: dict[str, str] = {
    "bastille create -B web2 14.2-RELEASE 198.51.100.9/24 bridge0": "it fetches a release; what it leaves is made by"
    " Bastille's own functions (tests/lab/managers/bastille_conf.py), or after them",
    "bsdinstall jail /jails/web1": "it fetches a release; what a jail must have is tried in tests/lab/test_main_job.py",
    "iocage create -n web3 -r 14.2-RELEASE vnet=on ip4_addr='vnet0|198.51.100.10/32'": "it fetches a release; what it"
    " leaves is made by tests/lab/managers/iocage_home.py",
    "ip route add": "a name for what the bench does beside us",
    "make interop": _PART,
    "make lab": _PART,
    "make lint": _PART,
    "make play": "tests/lab/test_demo.py::test_a_lab_to_play_with",
    "make soak": "tests/chaos, which `make test` runs with fewer repetitions",
    "make test": "it is what runs this",
    "make unit": _PART,
    ".venv/bin/pip install matplotlib && .venv/bin/python -m tests.lab.pictures": "it fetches a library, and draws for minutes",
    "newsyslog -NC /var/log/mobility.log": "FreeBSD's; tests/unit/test_readme.py holds the file's name against our rule's",
    "pfctl -f /etc/pf.conf": "Linux has no pf; that FreeBSD took these lines is on record (tests/unit/deploy/test_files.py)",
    "pkg install grafana": "FreeBSD's",
    "pkg install prometheus": "FreeBSD's; the Makefile installs Debian's, which the tests run",
    "pkg install -y python311 py311-sqlite3": "FreeBSD's; tests/unit/test_readme.py holds the names against the Makefile's",
    "pw useradd exabgp -d /nonexistent -s /usr/sbin/nologin -c 'BGP of mobility'": "FreeBSD's;"
    " tests/unit/test_readme.py holds the user against the default of bgp.user",
    "python -m tests.lab.pictures": "it needs a library that is not among ours, and draws for minutes",
    "python -m tests.lab.test_readme": "it writes the page; what it does before that is tests/lab/test_readme.py's test",
    "service devd restart": "FreeBSD's own service; the file that it reads is in tests/unit/deploy/test_files.py",
    "service grafana start": "Grafana's own service; what it reads is held against its documentation (tests/unit/deploy)",
    "service prometheus start": "Prometheus' own service; tests/lab/test_prometheus.py runs one with these rules",
    "service syslogd restart": "FreeBSD's own service; the file that it reads is in tests/unit/deploy/test_files.py",
    "sysrc pf_enable=YES && service pf start": "FreeBSD's own service; tests/unit/test_readme.py runs the first half",
    "sysrc ipsec_enable=YES && service ipsec start": "FreeBSD's own service: Linux' kernel has its keys by setsockopt;"
    " tests/unit/test_readme.py runs the first half",
    "zfs send": "what moves a jail's files is the reader's choice",
}
"""Commands that no test runs: why, and what is looked at in their place."""

NO_COMMANDS = frozenset(
    {
        "bgp always-compare-med",
        "debug { states, events };",
        "define JAILS4 = [ 198.51.100.0/24{32,32}, 198.51.100.32/28 ];",
        "define JAILS6 = [ 2001:db8:7::/64{128,128}, 2001:db8:7:0:1a::/80 ];",
        "define SERVICES6 = [ 64:ff9b::/96 ];",
        "error wait time",
        "extended next hop on",
        "global rib",
        "med metric on",
        "mobility 0.1.0",
        "mobility vnet ...",
        "pass proto carp",
        "rde med compare always",
    }
)
"""Spans that look like commands and are words of a configuration, or of an output."""


def shell_lines(page: str, name: str) -> list[str]:
    """Return the lines of the `sh` blocks of a name, without what they remark."""
    found = [line for each in blocks(page, "sh") if each.name == name for line in each.text.splitlines()]
    return [line.partition("  #")[0].rstrip() for line in found]


def install_lines(page: str) -> list[str]:
    """Return the lines that install it."""
    return shell_lines(page, "install")


def monitoring_lines(page: str) -> list[str]:
    """Return the lines that install what watches it."""
    return shell_lines(page, "monitoring")


def spans(page: str) -> list[str]:
    """Return the code spans of the text that are a command, or might be one: two words or more, no setting."""
    for each in reversed(blocks(page)):
        page = page[: each.start] + page[each.end :]
    found = []
    for paragraph in re.split(r"\n\s*\n|\n(?=\|)|\n(?=\s*(?:-|\d+\.) )", page.replace("```", "")):
        for text in _SPAN.findall(paragraph):
            span = " ".join(text.split())
            words = span.split(" ")
            if len(words) > 1 and _WORD.fullmatch(words[0]) and not _SETTING.fullmatch(span):
                found.append(span)
    return found


def is_command(span: str) -> bool:
    """Tell whether a code span is a command."""
    return span.split()[0].rpartition("/")[2] in PROGRAMS


def console_lines(page: str) -> set[str]:
    """Return the commands of all console blocks."""
    return {step.line for each in blocks(page, "console") for step in steps(each.text)}
