"""jls(8) of FreeBSD 13.2. Source: usr.sbin/jls/jls.c, lib/libjail/jail.c; freebsd-13.2/2-vnet.txt, 14-dying.txt."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tests.lab.commands.support import BadOption, Caller, Exit, Output, getopt, strip_libxo
from tests.lab.kernel.errors import Refused
from tests.lab.kernel.parameters import BOOLEAN, KNOWN, READ_ONLY, positive

USAGE = "jls: usage: jls [-dhNnqsv] [-j jail] [param ...]"
_LISTS = {"ip4.addr": "ipv4_addr", "ip6.addr": "ipv6_addr"}


def main(arguments: list[str], caller: Caller, output: Output) -> None:
    """List jails; Exit with 1 for an unknown jail or parameter."""
    rest, style = strip_libxo(arguments)
    try:
        options, names = getopt("jls", rest, "adj:hNnqsv", output)
    except BadOption:
        output.fail(1, USAGE)
    flags = {letter for letter, _value in options}
    which = next((value for letter, value in reversed(options) if letter == "j"), None)
    if "s" in flags:
        flags |= {"n", "q"}
    parameters = _wanted(names, flags, output)
    encoded = style.startswith("json")
    lines: list[str] = []
    if parameters is None and not encoded:
        lines.append(_header(flags))
    elif parameters is not None and "h" in flags:
        lines.append(" ".join(parameters))
    try:
        if which is None:
            jails = caller.machine.visible(caller.jail, dying=bool(flags & {"a", "d"}))
        else:
            jails = [caller.machine.find(caller.jail, which, dying=bool(flags & {"a", "d"}))]
    except Refused as refused:
        output.err(f"jls: {refused.message}\n")
        if lines:
            output.out("\n".join(lines) + "\n")
        raise Exit(1) from None
    values = [caller.machine.parameters(jail, caller.jail) for jail in jails]
    if encoded:
        output.out(_compact([_encode(each, parameters, flags) for each in values]) + "\n")
        return
    lines += [_text(each, parameters, flags) for each in values]
    if lines:
        output.out("\n".join(lines) + "\n")


def _wanted(names: Sequence[str], flags: set[str], output: Output) -> list[str] | None:
    """The parameters to print, None for the default table."""
    if not names:
        if not flags & {"h", "n", "s"}:
            return None
        names = ["all"]
    found: list[str] = []
    for name in names:
        if name == "all":
            found += sorted(KNOWN, key=lambda each: ("." in each, each))
            continue
        try:
            found.append(positive(name)[0])
        except Refused as refused:
            output.fail(1, f"jls: {refused.message}")
    return [name for name in dict.fromkeys(found) if not ("s" in flags and name in READ_ONLY)]


def _header(flags: set[str]) -> str:
    if "v" in flags:
        return "\n".join(
            (
                f"   JID  Hostname{'':22}Path",
                f"{'':8}Name{'':26}State",
                f"{'':8}CPUSetID",
                f"{'':8}IP Address(es)",
            )
        )
    if "N" in flags:
        return f" {'JID':<15} {'IP Address':<15} {'Hostname':<29} Path"
    return f"{'JID':>6}  IP Address{'':6}Hostname{'':22}Path"


def _text(values: dict[str, str], parameters: list[str] | None, flags: set[str]) -> str:
    if parameters is None:
        name, path = values["host.hostname"], values["path"]
        if "v" in flags:
            state = "DYING" if values["dying"] == "true" else "ACTIVE"
            lines = [
                f"{values['jid']:>6}  {name[:29]:<29} {path[:74]}",
                f"        {values['name'][:29]:<29} {state}",
                f"        {values['cpuset.id']}",
            ]
            lines += [f"        {each}" for key in _LISTS for each in values[key].split(",") if each]
            return "\n".join(lines)
        address = values["ip4.addr"].split(",")[0]
        first = f" {values['name']:<15} " if "N" in flags else f"{values['jid']:>6}  "
        return f"{first}{address[:15]:<15} {name[:29]:<29} {path[:74]}"
    return " ".join(_one(name, values.get(name, ""), flags) for name in parameters)


def _one(name: str, value: str, flags: set[str]) -> str:
    if "n" in flags and name in BOOLEAN:
        head, dot, last = name.rpartition(".")
        return name if value == "true" else f"{head}{dot}no{last}"
    if name in _LISTS and not value:
        value = '""' if "q" in flags else ("" if "n" in flags else "-")
    elif not value:
        value = '""'
    elif "q" in flags:
        value = _quoted(value)
    return f"{name}={value}" if "n" in flags else value


def _quoted(value: str) -> str:
    if "'" in value:
        return f'"{value}"'
    if '"' in value:
        return f"'{value}'"
    return f'"{value}"' if " " in value or "\t" in value else value


def _encode(values: dict[str, str], parameters: list[str] | None, flags: set[str]) -> dict[str, object]:
    if parameters is None:
        jid = int(values["jid"])
        if "v" in flags:
            return {
                "jid": jid,
                "hostname": values["host.hostname"],
                "path": values["path"],
                "name": values["name"],
                "state": "DYING" if values["dying"] == "true" else "ACTIVE",
                "cpusetid": int(values["cpuset.id"]),
                "ipv4_addrs": _list(values["ip4.addr"]),
                "ipv6_addrs": _list(values["ip6.addr"]),
            }
        first: dict[str, object] = {"name": values["name"]} if "N" in flags else {"jid": jid}
        rest = {"ipv4": values["ip4.addr"].split(",")[0], "hostname": values["host.hostname"], "path": values["path"]}
        return first | rest
    found: dict[str, object] = {}
    for name in parameters:
        value = values.get(name, "")
        if name in _LISTS:
            found[name] = _list(value)
        elif name in BOOLEAN and "n" in flags:
            found[name] = value == "true"
        else:
            found[name] = value
    return found


def _compact(jails: list[dict[str, object]]) -> str:
    """libxo's JSON: a blank after the colon of the version and of what opens a list or container, and before such a
    name, none between the fields.
    """
    body = ", ".join(
        "{" + ",".join(_field(name, value) for name, value in each.items()).lstrip() + "}" for each in jails
    )
    return f'{{"__version": "2", "jail-information": {{"jail": [{body}]}}}}'


def _list(value: str) -> list[str]:
    return [each for each in value.split(",") if each]


def _field(name: str, value: object) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return f' "{name}": {text}' if isinstance(value, list) else f'"{name}":{text}'
