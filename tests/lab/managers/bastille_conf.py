"""jail.conf files as Bastille makes them: by its rules, written anew, and by a Bastille's own functions where one is given.

The rules: generate_vnet_jail_conf (create.sh), generate_vnet_jail_netblock (lib/network.sh) and add_interface (network.sh)
of Bastille 1.4.4; the older forms are those of 0.9 (create.sh) and 0.10 to 0.14 (common.sh).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

VARIABLE = "MOBILITY_BASTILLE"
"""The environment variable that names a Bastille source tree."""
MISSING = f"{VARIABLE} names no Bastille source tree (git clone of BastilleBSD/bastille)"
STANDARD, BRIDGE, PASSTHROUGH, NETGRAPH = "standard", "bridge", "passthrough", "netgraph"
KINDS = (STANDARD, BRIDGE, PASSTHROUGH, NETGRAPH)
MAC = "58:9c:fc:2a:a4:6"
LONG = "averylongjailname"


def source() -> Path | None:
    """Return the Bastille source tree, None where none is given."""
    path = Path(os.environ.get(VARIABLE, "/nonexistent"))
    return path if (path / "usr/local/share/bastille/lib/network.sh").is_file() else None


def suffix(name: str, number: int = 0) -> str:
    """What follows "e0a_": the jail's name, or where that would be longer than 15 characters another one."""
    return name if len(f"e{number}a_{name}") < 16 else "bastille1"


def vnet_lines(
    name: str, kind: str, external: str, *, static_mac: bool = False, number: int = 0, called: str | None = None
) -> list[str]:
    """The lines of one interface; `number` counts from 0, `called` is its suffix."""
    after = called or suffix(name, number)
    outer, inner = f"e{number}a_{after}", f"e{number}b_{after}"
    if kind == PASSTHROUGH:
        inner = external
    elif kind == NETGRAPH:
        inner = f"ng{number}_{name}"
    assign = "=" if number == 0 else "+="
    lines = [f"vnet.interface {assign} {inner};"]
    if kind == PASSTHROUGH:
        return [*lines, f'exec.prestop += "ifconfig {external} -vnet {name}";']
    if kind == NETGRAPH:
        macs = [f'exec.prestart += "ifconfig {inner} ether {MAC}b";'] * static_mac
        return [
            *lines,
            f'exec.prestart += "jng bridge {name} {external}";',
            *macs,
            f'exec.poststop += "jng shutdown {name}";',
        ]
    if kind == BRIDGE:
        pair = f"epair{number}"
        create = (
            f"{pair}=\\$(ifconfig epair create) && ifconfig \\${{{pair}}} up name {outer} "
            f"&& ifconfig \\${{{pair}%a}}b up name {inner}"
        )
        lines += [
            f'exec.prestart += "{create}";',
            f'exec.prestart += "ifconfig {external} addm {outer}";',
        ]
    else:
        lines += [f'exec.prestart += "jib addm {after} {external}";']
    if static_mac:
        lines += [
            f'exec.prestart += "ifconfig {outer} ether {MAC}a";',
            f'exec.prestart += "ifconfig {inner} ether {MAC}b";',
        ]
    return [
        *lines,
        f'exec.prestart += "ifconfig {outer} description \\"vnet{number} host interface for Bastille jail {name}\\"";',
        f'exec.poststop += "ifconfig {outer} destroy";',
    ]


def old_lines(name: str, form: str) -> list[str]:
    """The lines of one interface as older Bastilles wrote them."""
    if form == "0.9":
        return [
            "vnet.interface = e0b_bastille0;",
            'exec.prestart += "jib addm bastille0 em0";',
            'exec.poststop += "jib destroy bastille0";',
        ]
    if form == "0.10":
        return [
            'vnet.interface = "e3b_web1";',
            'exec.prestart += "ifconfig epair3 create";',
            'exec.prestart += "ifconfig bridge0 addm epair3a";',
            'exec.prestart += "ifconfig epair3a up name e3a_web1";',
            'exec.prestart += "ifconfig epair3b up name e3b_web1";',
            'exec.poststop += "ifconfig bridge0 deletem e3a_web1";',
            'exec.poststop += "ifconfig e3a_web1 destroy";',
        ]
    if form == "0.12":
        return [
            "vnet.interface = e0b_bastille0;",
            'exec.prestart += "jib addm bastille0 em0";',
            f'exec.prestart += "ifconfig e0a_bastille0 ether {MAC}a";',
            f'exec.prestart += "ifconfig e0b_bastille0 ether {MAC}b";',
            f'exec.prestart += "ifconfig e0a_bastille0 description \\"vnet host interface for Bastille jail {name}\\"";',
            'exec.poststop += "jib destroy bastille0";',
        ]
    assert form == "0.14"
    return [
        "vnet.interface = epair2b;",
        'exec.prestart += "ifconfig epair2 create";',
        'exec.prestart += "ifconfig bridge0 addm epair2a";',
        'exec.prestart += "ifconfig epair2a up name epair2a";',
        'exec.prestart += "ifconfig epair2b up name epair2b";',
        f'exec.prestart += "ifconfig epair2a ether {MAC}a";',
        f'exec.prestart += "ifconfig epair2b ether {MAC}b";',
        f'exec.prestart += "ifconfig epair2a description \\"vnet0 host interface for Bastille jail {name}\\"";',
        'exec.poststop += "ifconfig bridge0 deletem epair2a";',
        'exec.poststop += "ifconfig epair2a destroy";',
    ]


OLD_FORMS = ("0.9", "0.10", "0.12", "0.14")


def conf(name: str, network: list[str], prefix: str = "/usr/local/bastille", log: str = "/var/log/bastille") -> str:
    """A jail.conf of a jail whose network lines are these."""
    folder = f"{prefix}/jails/{name}"
    lines = [
        "enforce_statfs = 2;",
        "devfs_ruleset = 13;",
        "exec.clean;",
        f"exec.consolelog = {log}/{name}/console.log;",
        "exec.start = '/bin/sh /etc/rc';",
        "exec.stop = '/bin/sh /etc/rc.shutdown';",
        f"host.hostname = {name};",
        "mount.devfs;",
        f"mount.fstab = {folder}/fstab;",
        f"path = {folder}/root;",
        "securelevel = 2;",
        'osrelease = "13.2-RELEASE";',
    ]
    return "\n".join([f"{name} {{", *(f"  {line}" for line in lines), "", *(f"  {line}" for line in network), "}", ""])


def vnet_conf(
    name: str,
    kind: str,
    external: str = "em0",
    *,
    static_mac: bool = False,
    prefix: str = "/usr/local/bastille",
    log: str = "/var/log/bastille",
) -> str:
    """A vnet jail's jail.conf, as `bastille create` makes it."""
    return conf(name, ["vnet;", *vnet_lines(name, kind, external, static_mac=static_mac)], prefix, log)


def host_conf(name: str, *addresses: str, prefix: str = "/usr/local/bastille", log: str = "/var/log/bastille") -> str:
    """A jail.conf of a jail without vnet: "bastille0|10.17.89.1/32", "ip4 = inherit" and so on."""
    lines = [
        f"ip{6 if ':' in text else 4}.addr {'=' if number == 0 else '+='} {text};"
        for number, text in enumerate(addresses)
    ]
    return conf(name, [*lines, "", "ip6 = disable;"], prefix, log)


def with_another(text: str, name: str, kind: str, external: str, number: int, called: str | None = None) -> str:
    """What `bastille network add` makes of a jail.conf: a further interface, and the brace again."""
    lines = vnet_lines(name, kind, external, number=number, called=called)
    title = external if kind == PASSTHROUGH else lines[0].split()[2].rstrip(";").replace("b_", "a_")
    kept = "".join(line for line in text.splitlines(keepends=True) if line != "}\n")
    return kept + "".join(f"  {line}\n" for line in [f"## {title} interface", *lines]) + "}\n"


def rc_conf(
    inner: str, ipv4: str = "", ipv6: str = "", vnet: str = "vnet0", router: str = "NO", router6: str = "NO"
) -> str:
    """The lines of the template default/vnet."""
    return (
        f'ifconfig_{inner}_name="{vnet}"\n'
        f'ifconfig_{vnet}="{ipv4}"\n'
        f'ifconfig_{vnet}_descr="jail interface for em0"\n'
        f'ifconfig_{vnet}_ipv6="{ipv6}"\n'
        f'defaultrouter="{router}"\n'
        f'ipv6_defaultrouter="{router6}"\n'
    )


_BY_ITS_OWN = """\
sysctl() { echo 0; }
sysrc() { echo /nonexistent; }
ifconfig() { printf 'em0: flags=8863\\n\\tether 58:9c:fc:00:00:01\\n'; }
sha256() { sha256sum | cut -d' ' -f1; }
error_notify() { echo "$*" >&2; }
. "$NETWORK"
eval "$FUNCTION"
bastille_jail_log_console=$LOG/$NAME/console.log
bastille_jail_fstab=$PREFIX/jails/$NAME/fstab
bastille_jail_path=$PREFIX/jails/$NAME/root
OS_RELEASE_DEFINITION='osrelease = "13.2-RELEASE";'
bastille_jail_conf=/dev/stdout
generate_vnet_jail_conf
"""


def vnet_conf_by(
    tree: Path,
    name: str,
    kind: str,
    external: str = "em0",
    *,
    static_mac: bool = False,
    prefix: str = "/usr/local/bastille",
    log: str = "/var/log/bastille",
) -> str:
    """A vnet jail's jail.conf by a Bastille's own generate_vnet_jail_conf and generate_vnet_jail_netblock."""
    share = tree / "usr/local/share/bastille"
    create = (share / "create.sh").read_text()
    begin = create.index("generate_vnet_jail_conf() {")
    environment = {
        "PATH": "/usr/bin:/bin",
        "NETWORK": str(share / "lib/network.sh"),
        "FUNCTION": create[begin : create.index("\npost_create_jail() {", begin)],
        "NAME": name,
        "PREFIX": prefix,
        "LOG": log,
        "VNET_INTERFACE_TYPE": STANDARD if kind == NETGRAPH else kind,
        "bastille_network_vnet_type": NETGRAPH if kind == NETGRAPH else "if_bridge",
        "bastille_jail_conf_interface": external,
        "STATIC_MAC": str(int(static_mac)),
    }
    result = subprocess.run(["sh", "-c", _BY_ITS_OWN], env=environment, capture_output=True, text=True, check=True)
    return result.stdout
