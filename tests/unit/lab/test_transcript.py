"""How transcripts are cut, masked and compared: what differs between machines is masked, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.conformance.__main__ import TRANSCRIPTS, scripts
from tests.lab.conformance.transcript import Answer, answers, compare, show

RECORDED = sorted(path.stem for path in TRANSCRIPTS.glob("*.sh") if path.stem != "prelude")


def same(expected: str, found: str, *, head: str = "$ x", script: str = "") -> bool:
    """Whether two outputs of one command count as the same."""
    result = compare(script, f"{head}\n{expected}\n", f"{head}\n{found}\n")
    assert result.commands == 1
    return result.same == 1


def test_cutting() -> None:
    text = "before\n\n# remark\n$ a b\nout\n\nmore\n[exit 1]\n\n# silent remark\n\n# remark with output\nout\n$ c\n"
    assert answers(text) == [
        Answer("", ("before",)),
        Answer("$ a b", ("out", "", "more", "[exit 1]")),
        Answer("# remark with output", ("out",)),
        Answer("$ c", ()),
    ]


@pytest.mark.parametrize("name", RECORDED)
def test_a_transcript_is_the_same_as_itself(name: str) -> None:
    text = (TRANSCRIPTS / f"{name}.txt").read_text()
    result = compare((TRANSCRIPTS / f"{name}.sh").read_text(), text, text)
    assert result.same == result.commands > 0
    assert not result.differences


@pytest.mark.parametrize("name", RECORDED)
def test_every_answer_counts(name: str) -> None:
    text = (TRANSCRIPTS / f"{name}.txt").read_text()
    result = compare("", text, "")
    assert result.same == 0
    assert result.commands == len(answers(text))


def test_an_answer_that_only_the_lab_gave_counts() -> None:
    result = compare("", "$ a\n", "$ a\n$ b\nsh: b: not found\n[exit 127]\n")
    assert (result.commands, result.same) == (2, 1)


def test_an_answer_in_between_that_is_missing_spoils_no_other() -> None:
    result = compare("", "$ a\n$ b\n$ c\n", "$ a\n$ c\n")
    assert (result.commands, result.same) == (3, 2)
    assert result.differences[0].found is None


@pytest.mark.parametrize(
    ("expected", "found", "head"),
    [
        ("ether 02:88:58:4b:3b:0a", "ether 02:00:00:00:00:01", "$ x"),
        ("inet6 fe80::3f:1bff:fecd:460b%e prefixlen 64", "inet6 fe80::1:2ff:fe03:4%e prefixlen 64", "$ x"),
        ("127.0.0.1  link#1       UH   lo0", "127.0.0.1  link#10      UH   lo0", "$ x"),
        ("prefixlen 64 scopeid 0x4", "prefixlen 64 scopeid 0x12", "$ x"),
        (
            "64 bytes from 1.1.1.1: icmp_seq=0 ttl=64 time=2.801 ms",
            "64 bytes from 1.1.1.1: icmp_seq=0 ttl=64 time=0.04 ms",
            "$ x",
        ),
        ("stddev = 1.0/2.0/3.0/0.1 ms", "stddev = 0.5/0.5/0.5/0.0 ms", "$ x"),
        ("fe80::2%a  02:aa:aa:00:03:02  a 23h59m58s S ", "fe80::2%a  02:aa:aa:00:03:02  a 1d0h0m0s  S ", "$ x"),
        ("name=web1 jid=1", "name=web1 jid=12", "$ jls -n name jid"),
        ("a 2", "a 3", "$ jls name jid"),
        (
            "     5                  d.example                     /",
            "    12                  d.example                     /",
            "$ jls",
        ),
        (
            "tcp4       0      0 198.51.100.1.50609     203.0.113.1.8081       ESTABLISHED",
            "tcp4       0      0 198.51.100.1.1234      203.0.113.1.8081       ESTABLISHED",
            "$ x",
        ),
        ("net.route.algo.bucket_time_ms: 50", "net.route.algo.bucket_time_ms: 51", "$ x"),
    ],
)
def test_what_differs_between_machines_is_masked(expected: str, found: str, head: str) -> None:
    assert same(expected, found, head=head, script="nc -l 8081")


@pytest.mark.parametrize(
    ("expected", "found", "head"),
    [
        ("ether 02:aa:aa:00:01:01", "ether 02:aa:aa:00:01:02", "$ x"),
        ("flags=8863<UP> metric 0 mtu 1500", "flags=8863<UP> metric 0 mtu 1501", "$ x"),
        ("127.0.0.1  link#1       UH   lo0", "127.0.0.1  link#1       UHS  lo0", "$ x"),
        ("icmp_seq=0 ttl=64 time=2.801 ms", "icmp_seq=0 ttl=63 time=2.801 ms", "$ x"),
        ("1 packets transmitted, 1 packets received", "1 packets transmitted, 0 packets received", "$ x"),
        ("fe80::2%a  02:aa:aa:00:03:02  a 30s       R ", "fe80::2%a  02:aa:aa:00:03:02  a 30s       S ", "$ x"),
        ("fe80::2%a  02:aa:aa:00:03:02  a permanent R ", "fe80::2%a  02:aa:aa:00:03:02  a 30s       R ", "$ x"),
        ("name=web1 jid=1", "name=web2 jid=1", "$ jls -n name jid"),
        ("a true", "a false", "$ jls -d name dying"),
        (
            "tcp4 0 0 198.51.100.1.8081     203.0.113.1.1234 LISTEN",
            "tcp4 0 0 198.51.100.1.8082     203.0.113.1.1234 LISTEN",
            "$ x",
        ),
        ("net.inet.ip.forwarding: 0 -> 1", "net.inet.ip.forwarding: 1 -> 1", "$ x"),
        ("[exit 1]", "[exit 2]", "$ x"),
        ("", "more", "$ x"),
    ],
)
def test_nothing_else_is(expected: str, found: str, head: str) -> None:
    assert not same(expected, found, head=head, script="ifconfig a ether 02:aa:aa:00:0$2:01; nc -l 8081")


def test_a_command_may_name_a_mac_of_the_machines_own() -> None:
    result = compare("arp -s a $M", "$ arp -s a 02:00:00:00:00:01\n", "$ arp -s a 02:00:00:00:00:02\n")
    assert (result.commands, result.same) == (1, 1)


def test_a_difference_is_shown() -> None:
    result = compare("", "$ a\none\ntwo\n", "$ a\none\n2\n")
    assert show(result.differences[0]) == ["  $ a", "     one", "    -two", "    +2"]


def test_what_is_run_and_what_is_not(tmp_path: Path) -> None:
    for name in ("10-b.sh", "10-b.txt", "2-a.sh", "2-a.txt", "3-c.txt", "4-d.sh", "5-e.sh", "5-e.txt", "prelude.sh"):
        (tmp_path / name).write_text("")
    (tmp_path / "README.md").write_text("| 5-e.txt | (to read, not for the lab) something |\n")
    run, left = scripts(tmp_path, [])
    assert run == ["2-a", "10-b"]
    assert left == {
        "3-c": "has no script",
        "4-d": "has no transcript",
        "5-e": "the folder's README says: to read, not for the lab",
    }
