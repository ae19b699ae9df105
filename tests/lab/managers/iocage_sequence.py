"""The commands that iocage gives when it starts and stops a jail, in its order, for machines without its source.

Written from iocage 1.2 (github.com/iocage/iocage at cbf0f60): ioc_start.py (IOCStart.__start_jail__, start_network,
start_network_interface_vnet, start_network_vnet_iface, start_network_vnet_addr, find_bridge_mtu), ioc_stop.py
(IOCStop.__stop_jail__), ioc_common.py (runscript), ioc_exec.py (IOCExec), ioc_json.py (JailRuntimeConfiguration). Left out:
what concerns no network (devfs, rctl, fstab, ZFS), DHCP, nat, and one command in bridges: it asks no member for its MTU.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess

from mobility.jails import iocage
from mobility.jails.iocage import NONE, PREFIX, Properties
from tests.lab.managers.iocage_home import Home

#: IOCExec's environment, in which it runs scripts on the host and programs in the jail.
PATH = "/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:/root/bin"
CLEAN = ["/usr/bin/env", "-i", f"PATH={PATH}", "PWD=/", "HOME=/", "TERM=xterm-256color", "LANG=en_US.UTF-8"]
#: What is in every jail's runtime file (__start_jail__, start_parameters), as far as the lab's kernel knows it.
PARAMETERS: tuple[str, ...] = (
    "allow.set_hostname = 1",
    "securelevel = 2",
    "enforce_statfs = 2",
    "children.max = 0",
    "exec.clean = 1",
)
PARAMETERS += ("exec.timeout = 60", "stop.timeout = 30", "allow.dying", "persist")


class Failed(RuntimeError):
    """What iocage would have said before it gave up."""


class Sequence:
    """Starts and stops jails as iocage does. See `iocage_home.Starter`."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def start(self, name: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`iocage start NAME`."""
        try:
            self._start(name, self._home.properties(name))
        except Failed as failed:
            if check:
                raise
            return subprocess.CompletedProcess(["iocage", "start", name], 1, "", str(failed))
        return subprocess.CompletedProcess(["iocage", "start", name], 0, "", "")

    def stop(self, name: str, *, force: bool = False, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`iocage stop [--force] NAME`."""
        try:
            self._stop(name, self._home.properties(name), force=force)
        except Failed as failed:
            if check:
                raise
            return subprocess.CompletedProcess(["iocage", "stop", name], 1, "", str(failed))
        return subprocess.CompletedProcess(["iocage", "stop", name], 0, "", "")

    def _start(self, name: str, properties: Properties) -> None:
        conf = self._runtime(name, properties)
        try:
            self._script(name, properties.text("exec_prestart"))
        except Failed as failed:
            # IOCStop finds no jail, and runs no exec_poststop
            raise Failed(f"Refusing to start {name}: exec_prestart failed\n{failed}") from failed
        self._run(name, "jail", "-f", conf, "-c")
        try:
            if properties.true("vnet"):
                self._network(name, properties)
            self._in_jail(name, *(properties.text("exec_start") or "/bin/sh /etc/rc").split(), clean=True)
            self._script(name, properties.text("exec_poststart"))
        except Failed as failed:
            self._stop(name, self._home.properties(name), force=True)
            raise Failed(f"Refusing to start {name}\n{failed}") from failed
        self._set(name, last_started="2026-11-21 10:00:00")

    def _stop(self, name: str, properties: Properties, *, force: bool) -> None:
        jid = self._jid(name)
        if not jid:
            return
        conf = f"/var/run/jail.{PREFIX}{name}.conf"
        if force:
            # every exec.* is taken out of the runtime file, no exec_prestop and no exec_stop is run
            self._run(name, "sh", "-c", f"sed /exec/d {conf} >{conf}.new && mv {conf}.new {conf}")
        else:
            self._script(name, properties.text("exec_prestop"))
            self._in_jail(name, *(properties.text("exec_stop") or "/bin/sh /etc/rc.shutdown").split(), clean=True)
        has = any(properties.text(key) != NONE for key in iocage.ADDRESSES)
        if properties.true("vnet") and (has or properties.true("dhcp")):
            for nic in self._nics(properties):
                self._run(name, "ifconfig", f"{nic}.{jid}", "destroy", check=False)  # a warning only
        self._run(name, "jail", "-q", "-f", conf, "-r", f"{PREFIX}{name}")
        self._run(name, "rm", conf)
        self._script(name, properties.text("exec_poststop"), check=False)  # it has stopped all the same

    def _runtime(self, name: str, properties: Properties) -> str:
        """Write the jail's own jail.conf, return its path."""
        lines = [*PARAMETERS, f"exec.created = {_quoted(properties.text('exec_created'))}"]
        lines += [f"path = {_quoted(str(self._home.jail(name) / 'root'))}", f"host.hostname = {_quoted(name)}"]
        if properties.true("vnet"):
            lines.insert(0, "vnet")
        else:
            for key, parameter in (("ip4_addr", "ip4.addr"), ("ip6_addr", "ip6.addr")):
                given = properties.text(key)
                lines += [f"{parameter} += {_quoted(item)}" for item in given.split(",") if given != NONE]
        text = "".join(f"\t{line};\n" for line in lines)
        file = f"jail.{PREFIX}{name}.conf"
        (self._home.run_folder / file).write_text(f'"{PREFIX}{name}" {{\n{text}}}\n')
        return f"/var/run/{file}"

    def _network(self, name: str, properties: Properties) -> None:
        jid = self._jid(name)
        for item in properties.text("interfaces").split(","):
            nic, bridge = item.split(":")
            # the bridge is made where it is not there; that addm has no argument fails either way (find_bridge_mtu)
            self._run(name, "ifconfig", bridge, "create", "addm", check=False)
            self._run(name, "ifconfig", bridge)
            made = False
            for key, family in (("ip4_addr", []), ("ip6_addr", ["inet6"])):
                for interface, address, mask in properties.addresses(key):
                    if (interface or "vnet0") != nic:
                        continue
                    if not made:
                        self._pair(name, properties, nic, bridge, jid)
                        made = True
                    last = "up" if family else "alias"
                    text = f"{address}/{mask}" if mask else address
                    self._in_jail(name, "ifconfig", _inner(nic), *family, text, last)
        for key, family, router in (("ip4_addr", [], "defaultrouter"), ("ip6_addr", ["-6"], "defaultrouter6")):
            if properties.text(key) != NONE and properties.text(router) != NONE:
                self._in_jail(name, "route", "add", *family, "default", self._router(properties.text(router), family))

    def _pair(self, name: str, properties: Properties, nic: str, bridge: str, jid: str) -> None:
        outer, inner, jail = f"{nic}.{jid}", _inner(nic), f"{PREFIX}{name}"
        macs = self._macs(name, properties, nic)
        epair_a = self._run(name, "ifconfig", "epair", "create").strip()
        epair_b = f"{epair_a[:-1]}b"
        self._run(name, "ifconfig", epair_a, "name", outer, "mtu", "1500")
        self._run(name, "ifconfig", outer, "link", macs[0])
        self._run(name, "ifconfig", outer, "description", f"associated with jail: {name} as nic: {inner}")
        self._run(name, "ifconfig", epair_b, "vnet", jail)
        self._run(name, "jexec", jail, "ifconfig", epair_b, "mtu", "1500")
        if epair_b != inner:
            self._in_jail(name, "ifconfig", epair_b, "name", inner)
        self._in_jail(name, "ifconfig", inner, "link", macs[1])
        default = properties.text("vnet_default_interface")
        if default != NONE:
            uplink = self._default_route(4)[1] if default == "auto" else default
            self._run(name, "ifconfig", bridge, "addm", uplink, check=False)  # it is in there already
        self._run(name, "ifconfig", bridge, "addm", outer, "up")
        self._run(name, "ifconfig", outer, "up")

    def _macs(self, name: str, properties: Properties, nic: str) -> list[str]:
        """Return the pair's MACs, and keep them (__generate_mac_address_pair)."""
        kept = properties.text(f"{nic}_mac")
        if kept not in ("", NONE):
            return kept.replace(",", " ").split()
        digest = hashlib.md5(f"{name}{nic}".encode(), usedforsecurity=False).hexdigest()
        first = f"02ff60{digest[:6]}"
        macs = [first, f"{int(first, 16) + 1:012x}"]
        self._set(name, **{f"{nic}_mac": " ".join(macs)})
        return macs

    def _router(self, router: str, family: list[str]) -> str:
        return self._default_route(6 if family else 4)[0] if router == "auto" else router

    def _default_route(self, version: int) -> tuple[str, str]:
        """Return the gateway and the interface of the host's own default route (get_host_gateways)."""
        said = json.loads(self._home.host.run(["netstat", "-r", "-n", "--libxo", "json"]).stdout)
        for family in said["statistics"]["route-information"]["route-table"]["rt-family"]:
            if family["address-family"] == ("Internet" if version == 4 else "Internet6"):
                for entry in family["rt-entry"]:
                    if entry["destination"] == "default":
                        return entry["gateway"], entry["interface-name"]
        raise Failed("No default interface found")

    def _nics(self, properties: Properties) -> list[str]:
        return [item.split(":")[0] for item in properties.text("interfaces").split(",")]

    def _jid(self, name: str) -> str:
        """Return the jid, "" where the jail does not run (ioc_list.py, list_get_jid)."""
        said = self._home.host.run(["jls", "-j", f"{PREFIX}{name}"], check=False)
        return said.stdout.split()[5] if said.returncode == 0 else ""

    def _set(self, name: str, **values: str) -> None:
        """Set properties, and write them as iocage does (json_set_value, json_write)."""
        path = self._home.jail(name) / iocage.CONFIG
        text = json.dumps(iocage.load(path) | values, sort_keys=True, indent=4, ensure_ascii=False)
        new = path.with_name("new")
        new.write_text(text)
        new.replace(path)

    def _script(self, name: str, script: str, *, check: bool = True) -> None:
        """Run what stands in a property (runscript)."""
        words = shlex.split(script)
        argv = ["/bin/sh", "-c", " ".join(words)] if len(words) > 1 else words
        self._run(name, *CLEAN, *argv, check=check)

    def _in_jail(self, name: str, *argv: str, clean: bool = False) -> None:
        self._run(name, *(CLEAN if clean else []), "setfib", "0", "jexec", f"{PREFIX}{name}", *argv)

    def _run(self, name: str, *argv: str, check: bool = True) -> str:
        done = self._home.host.run([*self._home.inside(name), *argv], check=False)
        if check and done.returncode:
            raise Failed(f"{shlex.join(argv)}: exit {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout


def _inner(nic: str) -> str:
    return f"{nic.replace('vnet', 'epair')}b" if "vnet" in nic else nic


def _quoted(text: str) -> str:
    return f'"{text}"'  # as it is (JailRuntimeConfiguration, __write_file)
