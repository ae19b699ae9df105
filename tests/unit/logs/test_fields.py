"""The fields of the log's lines: each is told of, none that is not used, and the same thing has the same name everywhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from mobility.logs.lines import FIELDS
from tests.readme import DEPLOY, PATH, REPOSITORY, table

HEADING = "### Fields of a line"
EVERY_LINE = ("time", "level", "logger", "message")


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    """Yield each call of a method of a module's `log`."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="log"))):
                yield node


def keys(node: ast.expr, functions: dict[str, ast.FunctionDef]) -> set[str]:
    """Return the keys of a dict that is written out, or that a function of the module returns."""
    match node:
        case ast.Dict():
            assert all(isinstance(key, ast.Constant) for key in node.keys), ast.unparse(node)
            return {str(key.value) for key in node.keys if isinstance(key, ast.Constant)}
        case ast.Call(func=ast.Name(id=name)):
            returned = [each.value for each in ast.walk(functions[name]) if isinstance(each, ast.Return)]
            return {key for value in returned if value is not None for key in keys(value, functions)}
    raise AssertionError(f"which fields are these? {ast.unparse(node)}")


def modules() -> dict[Path, ast.Module]:
    # the bridge is another process, and speaks to ExaBGP only
    return {path: ast.parse(path.read_text()) for path in sorted((REPOSITORY / "mobility").rglob("*.py"))}


def used() -> set[str]:
    found: set[str] = set()
    for tree in modules().values():
        functions = {each.name: each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)}
        for call in calls(tree):
            for keyword in call.keywords:
                if keyword.arg == "extra":
                    found |= keys(keyword.value, functions)
    return found


def test_every_field_that_is_used_is_told_of_and_none_else() -> None:
    # those of mobility.logs itself are in records that it makes, not in calls
    own = {*EVERY_LINE, "traceback", "lines", "like", "event"}
    assert used() | own == set(FIELDS)


def test_what_differs_from_time_to_time_is_in_fields() -> None:
    """Lines of one kind have one message: it is what floods are told apart by, and what a reader searches for."""
    few = {"network: %s", "BGP session %s"}  # each stands for one of a few words
    for path, tree in modules().items():
        if path.parent.name == "logs":
            continue
        for call in calls(tree):
            at = 1 if isinstance(call.func, ast.Attribute) and call.func.attr == "log" else 0
            for text in ast.walk(call.args[at]):
                assert not isinstance(text, ast.JoinedStr), f"{path}: {ast.unparse(call)}"
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    assert "%" not in text.value or text.value in few, f"{path}: {ast.unparse(call)}"


def test_the_readme_has_them_all() -> None:
    rows = table(PATH.read_text(), HEADING)
    assert [row[0].strip("`") for row in rows] == list(FIELDS)
    assert [row[1] for row in rows] == list(FIELDS.values())


def test_the_manual_has_them_all() -> None:
    page = (DEPLOY / "freebsd" / "man" / "mobility.8").read_text()
    text = page.partition(".Ss Log\n")[2].partition(".Sh ")[0]
    assert re.findall(r"^\.It Li (\w+)$", text, re.MULTILINE) == list(FIELDS)
