"""rc.conf read without sh: held against sh itself."""

from __future__ import annotations

import random
import subprocess

import pytest

from mobility.jails.rcconf import RcConf, parse


def by_sh(text: str, *names: str) -> dict[str, str]:
    """What sh makes of a file: the names that it sets, with their values."""
    ask = "".join(f'if [ "${{{name}+set}}" ]; then printf "%s=%s\\0" {name} "${name}"; fi;' for name in names)
    result = subprocess.run(
        ["sh", "-c", f"exec 3>&1 >/dev/null\n{text}\nexec >&3\n{ask}"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    return dict(item.split("=", 1) for item in result.stdout.split("\0") if item)


def test_what_bastille_writes() -> None:
    said = parse(
        'syslogd_flags="-ss"\n'
        'ifconfig_e0b_web1_name="vnet0"\n'
        'ifconfig_vnet0="inet 198.51.100.7/24"\n'
        'ifconfig_vnet0_descr="jail interface for em0"\n'
        'defaultrouter="198.51.100.1"\n'
    )
    assert said.get("ifconfig_vnet0") == "inet 198.51.100.7/24"
    assert said.get("ifconfig_e0b_web1_name") == "vnet0"
    assert said.get("no_such") == ""
    assert (said.unclear, said.programs) == (frozenset(), ())


@pytest.mark.parametrize(
    "text",
    [
        "a=1",
        "a=1\na=2",
        "a=1;b=2",
        "a=1 b=2 # c=3",
        "# a=1\nb=2",
        "  \t a=1",
        "a='one two'",
        'a="one two"',
        "a='it''s'",
        'a="say \\"hi\\" \\$b \\`c\\` \\\\ \\n"',
        "a=one\\ two",
        "a=one\\\ntwo",
        'a="one\\\ntwo"',
        "a='one\\\ntwo'",
        'a="one\ntwo"\nb=3',
        "a=#b",
        "a=x#b",
        "a=''#b",
        "a=",
        'a=""',
        "export a=1",
        "export b",
        "\\\na=1",
        "readonly a='1 2'",
        "a=b=c",
        'a="inet 10.0.0.1/24"\nb="x"; a=\'y\'',
        "a=*",
        "a=x~",
        "a=1;;b=2"[:4],
    ],
)
def test_as_sh_does(text: str) -> None:
    said = parse(text)
    assert not said.unclear
    assert not said.programs
    assert dict(said.values) == by_sh(text, "a", "b")


@pytest.mark.parametrize(
    "text",
    [
        "a=$HOME",
        'a="$HOME"',
        'a="${b:-1}"',
        "a=`id`",
        'a="$(id -u)"',
        "a=~",
        "a=~root/x",
        "a=$((1 + 2))",
        "a=1 true",
        "true && a=1",
        "true &&\na=1",
        "false || a=1",
        "if true; then a=1; fi",
        "if false\nthen\na=1\nfi",
        "case x in\ny)\na=1\n;;\nesac",
        "f() {\na=1\n}",
        "{ a=1; }",
        "( a=1 )",
        "a=1 | cat",
        "for i in 1; do\na=2\ndone",
        "while false; do\na=1\ndone",
        "cat <<X >/dev/null\na=1\nX\n",
    ],
)
def test_what_needs_a_shell_is_not_understood(text: str) -> None:
    said = parse(f"b=known\n{text}")
    assert said.unclear == {"a"}
    assert dict(said.values) == {"b": "known"}
    assert parse(f"a=0\n{text}").get("a") == "", "an older value must not stand for one that is not understood"


def test_a_plain_value_after_one_that_is_not_understood() -> None:
    assert parse("a=$b\na=1") == RcConf({"a": "1"})


def test_programs_are_told_by_line() -> None:
    said = parse("a=1\n. /etc/defaults/rc.conf\nb=2\nlogger hello >/dev/null\n")
    assert (dict(said.values), said.programs) == ({"a": "1", "b": "2"}, (2, 4))


@pytest.mark.parametrize(("text", "line"), [("a='1", 1), ('a=1\nb="2\n\n', 2), ("a=1\n\nb='x\n'\"", 3)])
def test_an_open_quote(text: str, line: int) -> None:
    with pytest.raises(ValueError, match=f"line {line}: a quote is not closed"):
        parse(text)
    assert subprocess.run(["sh", "-n", "-c", text], capture_output=True, check=False).returncode != 0


def test_nothing_is_ever_run(tmp_path: object) -> None:
    mark = f"{tmp_path}/ran"
    parse(f'a="$(touch {mark})"\nb=`touch {mark}`\ntouch {mark}\n')
    assert subprocess.run(["test", "-e", mark], check=False).returncode == 1


def test_random_text_agrees_with_sh() -> None:
    """Whatever is understood is what sh says; odd pieces in all orders."""
    random.seed(4)
    pieces = ["a=", "b=", "1", "x y", "'", '"', "\\", "\n", " ", ";", "#", "$c", "`", "~", "=", "export ", "\\\n", "é"]
    agreed = 0
    for _ in range(3000):
        text = "".join(random.choices(pieces, k=random.randint(1, 9)))
        try:
            said = parse(text)
        except ValueError:
            continue
        if said.programs or "`" in text or text.endswith("\\"):
            continue  # a program would run, or the next line be drawn in
        try:
            real = by_sh(text, "a", "b")
        except subprocess.CalledProcessError:
            continue  # sh refuses the file
        assert {name: value for name, value in real.items() if name not in said.unclear} == {
            name: value for name, value in said.values.items() if name in ("a", "b")
        }, repr(text)
        agreed += bool(said.values)
    assert agreed > 100
