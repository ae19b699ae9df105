"""Case files, the list of expected differences, and the forms of the product's commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.conformance import cases, expected, forms
from tests.lab.conformance.__main__ import CASES, product_forms, recorded, scenario_forms, unanswered
from tests.lab.conformance.expected import Entry
from tests.lab.conformance.freebsd import runner
from tests.lab.conformance.transcript import Answer, Result, compare

FILES = sorted(CASES.glob("*.txt"))


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "some.txt"
    file.write_text(text)
    return file


class TestCases:
    def test_a_file(self, tmp_path: Path) -> None:
        text = "# kernel: 14\n% set up\n\n# source: a manual page\n$ say 'a b'\na b\n\nc\n\n# more\n$ x\n[exit 1]\n"
        loaded = cases.load(written(tmp_path, text))
        assert (loaded.kernel, loaded.commands) == ("14", "set up\nsay 'a b'\nx\n")
        assert loaded.expected == "$ say 'a b'\na b\n\nc\n$ x\n[exit 1]\n"
        assert "say 'a b'\n" in loaded.script

    def test_a_command_needs_a_source(self, tmp_path: Path) -> None:
        with pytest.raises(cases.CaseError, match=r"some\.txt:1: no source"):
            cases.load(written(tmp_path, "$ x\n"))

    def test_output_needs_a_command(self, tmp_path: Path) -> None:
        with pytest.raises(cases.CaseError, match=r"some\.txt:2: output before"):
            cases.load(written(tmp_path, "# source: s\nout\n"))

    @pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
    def test_ours_can_be_read(self, file: Path) -> None:
        loaded = cases.load(file)
        assert compare(loaded.commands, loaded.expected, loaded.expected).commands > 0


class TestExpectedDifferences:
    RESULT = compare("", "$ a 1\nx\n$ b\ny\n$ c\nz\n", "$ a 1\nX\n$ b\nY\n$ c\nz\n")

    def judge(self, *entries: Entry, name: str = "f") -> tuple[list[str], list[str], list[Entry]]:
        new, known, stale = expected.judge(entries, {name: self.RESULT})
        return (
            [expected.head(each) for _name, each in new],
            [f"{expected.head(each)}: {entry.reason}" for _name, each, entry in known],
            stale,
        )

    def test_without_an_entry_it_is_new(self) -> None:
        assert self.judge() == (["a 1", "b"], [], [])

    def test_an_entry_covers_what_its_pattern_matches_in_its_file(self) -> None:
        assert self.judge(Entry("f", "a *", "because")) == (["b"], ["a 1: because"], [])

    def test_an_entry_that_covers_nothing_is_stale(self) -> None:
        stale = Entry("f", "c", "because")
        assert self.judge(stale) == (["a 1", "b"], [], [stale])

    def test_files_that_were_not_run_are_left_alone(self) -> None:
        assert self.judge(Entry("g", "c", "because")) == (["a 1", "b"], [], [])

    def test_an_entry_says_why(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no reason"):
            expected.load(written(tmp_path, '[[difference]]\nfile = "f"\ncommand = "a"\nreason = " "\n'))

    def test_ours_says_why(self) -> None:
        assert all(entry.reason for entry in expected.load())


class TestForms:
    def test_what_is_read_out_of_source(self, tmp_path: Path) -> None:
        file = written(
            tmp_path,
            "a = ('ifconfig', name, 'up')\n"
            "b = run(['route', '-n', *(('-6',) if six else ()), verb, *way])\n"
            "c = (*ifconfig, name, 'inet6', f'{x}/64')\n"
            "d = ('ifconfig', 'route', 'netstat')\n"
            "e = ('jexec', jail)\n"
            "f = ['jail', 'reason']\n",
        )
        assert sorted(str(form) for form in forms.forms([file], tmp_path)) == [
            "ifconfig ? inet6 ?",
            "ifconfig ? up",
            "route -n -6 ? *",
            "route -n ? *",
        ]
        assert forms.forms([file], tmp_path)[0].where == "some.txt:1"

    @pytest.mark.parametrize(
        ("form", "line", "same"),
        [
            ("ifconfig ? up", "ifconfig lo0 up", True),
            ("ifconfig ? up", "ifconfig lo0 up down", False),
            ("ifconfig ? up", "ifconfig up", False),
            ("route * ?", "route -n get default", True),
            ("route * ?", "route", False),
        ],
    )
    def test_matching(self, form: str, line: str, same: bool) -> None:
        assert forms.matches(forms.Form(tuple(form.split()), ""), line.split()) == same

    def test_in_a_jail_it_is_the_same_command(self) -> None:
        assert forms.words_of("$ jexec a jexec b ifconfig 'x y'") == ("ifconfig", "x y")
        assert (forms.program("$ jexec a /sbin/ifconfig lo0"), forms.program("$ ls /var/run")) == ("jexec", "")

    def test_shape(self) -> None:
        address, text = ["inet6", "2001:db8::1/128", "-alias"], ["description", "a b", "192.0.2.1"]
        line = ["ifconfig", "e0", *address, "name", "x-1", *text]
        assert " ".join(forms.shape(line)) == "ifconfig ? inet6 6/ -alias name ? description ?"
        assert forms.shape(["route", "get", "fe80::1%x"]) == ("route", "get", "6%")
        assert forms.shape(["ifconfig", "e0", "fib", "1"]) != forms.shape(["ifconfig", "e0", "name", "x1"])

    def test_every_form_of_the_product_and_of_the_scenarios_has_an_answer(self) -> None:
        assert len(product_forms()) > 10, "the product's commands are not found any more"
        assert not unanswered([*product_forms(), *scenario_forms()], recorded())

    def test_a_new_form_would_be_found(self) -> None:
        new = forms.Form(("ifconfig", "?", "fib", "?"), "mobility/plan.py:1")
        assert unanswered([new], recorded()) == [new]


def test_heads_count() -> None:
    result = Result(("$ a", "$ b"), compare("", "$ a\nx\n", "$ a\ny\n").differences)
    assert (result.commands, result.same) == (2, 1)
    assert compare("", "$ a\n", "$ a\n").differences == ()
    assert Answer("$ a", ()).head == "$ a"


def test_freebsd_s_scripts_are_named_once_and_failures_say_why() -> None:
    scripts = runner.scripts()
    assert len({script.path for script in scripts}) == len(scripts)
    assert all(reason.strip() for script in scripts for reason in script.fails.values())
