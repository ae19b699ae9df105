"""What the doctor concludes from what it was shown."""

from __future__ import annotations

from pathlib import Path

from mobility import doctor
from mobility.network.command import Result


def answer(stdout: str, status: int = 0, stderr: str = "") -> Result:
    return Result(("x",), status, stdout, stderr, 0.0)


def test_a_sysctl() -> None:
    good = doctor.sysctl_verdict("net.inet.ip.forwarding", answer("1\n"), "1", "sysctl it=1", "why")
    assert (good.ok, good.mend) == (True, "")
    bad = doctor.sysctl_verdict("net.inet.ip.forwarding", answer("0\n"), "1", "sysctl it=1", "why")
    assert (bad.ok, bad.mend) == (False, "sysctl it=1")
    gone = doctor.sysctl_verdict("kern.x", answer("", 1, "sysctl: unknown oid 'kern.x'\n"), "1", "upgrade", "why")
    assert not gone.ok
    assert "unknown oid" in gone.why


def test_the_hosts_ipv4_address() -> None:
    header = "lo0: flags=8049<UP,LOOPBACK,RUNNING,MULTICAST> metric 0 mtu 16384\n\tinet 127.0.0.1 netmask 0xff000000\n"
    assert not doctor.ipv4_verdict(answer(header)).ok
    assert doctor.ipv4_verdict(answer(header + "\tinet 203.0.113.1 netmask 0xffffffff\n")).why == "203.0.113.1 on lo0"


def test_exabgps_version() -> None:
    assert doctor.exabgp_verdict(answer("ExaBGP : 5.0.15\nPython : 3.11.2\n")).ok
    assert doctor.exabgp_verdict(answer("ExaBGP : 5.1.0\n")).ok
    assert not doctor.exabgp_verdict(answer("ExaBGP : 4.2.21\n")).ok
    assert not doctor.exabgp_verdict(answer("", 1, "exec format error")).ok


def test_a_folder(tmp_path: Path) -> None:
    assert "does not exist" in doctor.folder_verdict("spool", tmp_path / "no", private=True).why
    tmp_path.chmod(0o777)
    verdict = doctor.folder_verdict("spool", tmp_path, private=True)
    assert not verdict.ok
    assert "chmod 700" in verdict.mend


def test_a_user_and_a_command(tmp_path: Path) -> None:
    assert doctor.user_verdict("root").ok
    assert doctor.user_verdict("nobody-at-all").mend.startswith("pw useradd nobody-at-all")
    assert doctor.command_verdict("sh", [Path("/bin")]).ok
    assert not doctor.command_verdict("ifconfig", [tmp_path]).ok
