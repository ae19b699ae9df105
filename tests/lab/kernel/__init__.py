"""The lab kernel: one process that stands in for a FreeBSD kernel, on Linux network namespaces: 13.2, or another one of
`releases.RELEASES` ("13.1", "14", "15", "no-rfc5549") as far as its differences are met here.

One process per lab, `python -m tests.lab.kernel --dir LABDIR [--owner-fd N] [--kernel NAME]`, holds a tree of jails and
vnets. The root of that tree is *the machine* (its vnet has lo0, pflog0 and pfsync0 and nothing else); a lab *host* is a
vnet jail of the root with `children.max`, as in freebsd-13.2/9-fabric.sh. Each vnet is a Linux network namespace and
each jail a UTS namespace (its host.hostname); only the kernel's own open descriptors keep them alive, so they vanish
with it.

What is true is what this process's memory says, in FreeBSD's terms; Linux is made to behave accordingly, and where
Linux would forgive what FreeBSD punishes (freebsd-13.2/README.md), it is made to punish.

LABDIR (mode 0755, /tmp/mobility-lab.*):
    bin/            FreeBSD's commands; put it first in PATH, in every vnet and jail alike. A caller's namespaces tell
                    which jail it is in, nobody has to say so. `jail` is tests.lab.jail8.__main__.main(LABDIR, argv).
    kernel.sock     where they and the API below talk to the kernel
    kernel.pid      "PID STARTTIME" (field 22 of /proc/PID/stat)
    kernel.log      what the kernel has to say (tracebacks of its own mistakes)
    devd/NAME       the socket of the devd of host NAME, devd/0 that of the machine's; devctl: its /dev/devctl (devctl.py)
    namespaces      inode numbers of the namespaces made so far
    rc.conf.d/NAME  for whoever wants one: the rc.conf of a jail whose path is / (see tests.lab.commands.rc)

For Python (tests.lab.kernel.client):
    with start() as kernel: ...       a new LABDIR and its kernel, which ends when this process ends, however it ends;
                                      start(kernel="15") plays another FreeBSD than 13.2
    Kernel(LABDIR)                    one that runs already; safe to use from several threads (one connection per call)
    kernel.directory, kernel.bin      Paths;  kernel.environment() -> os.environ with bin first in PATH
    kernel.enter("a.web1") -> argv prefix (nsenter) for running any Linux program in a jail's vnet; "" is the machine
    kernel.run("a", ["ifconfig", "-l"], check=..., timeout=...) -> CompletedProcess (text)
    kernel.popen("a", [...], **kw) -> Popen
    kernel.jail_create({"name": "web1", "path": "/", "vnet": "new", "persist": "true", ...}, parent="a") -> jid
        parameters are jail(8)'s, all values strings, booleans "true"/"false" or no value (None or "")
    kernel.jail_set("a.web1", {...}), kernel.jail_remove("a.web1"), kernel.jail_get("a.web1") -> dict of parameters
    kernel.jails(parent="", dying=False) -> list of such dicts, in jls's order
    kernel.vnet_move("epair0b", "web1", parent="a") and kernel.vnet_return("epair0b", "web1", parent="a")
    kernel.interfaces("a") -> list of dicts
    kernel.release() -> {"name", "osrelease", "osreldate"}
    kernel.devd("a") -> Path of host a's devd socket; devd_stop("a"), devd_start("a")
    kernel.link_state("a", "igb0", up=False): pull a cable; kernel.carp("a") -> its vhids
    kernel.pfsync("a", "hold" | "release" | "done" | "fail" | "") -> how its bulk update is
    kernel.where() -> the caller's own jail
    A name is FreeBSD's: dots lead down the tree. Without `parent`, it is seen from the caller's own jail (for a process
    outside of the lab, such as the test runner: from the machine). A jid in digits works too.
    Errors: KernelError(message in FreeBSD's words, errno's name).

`kernel.namespaces("a") -> (network namespace path, UTS namespace path)` are /proc/PID/fd/N of the kernel process: open
them for setns(2).
"""
