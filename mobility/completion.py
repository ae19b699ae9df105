"""Completion for shells, made from the command line's own parser: no command and no option is written down twice.

What a shell runs to complete is its own builtins and, for the names of jails, a look into jails.d and jls(8): quick,
harmless, and silent where they are not allowed or not there. Names are taken only as jails may be called here
(mobility.model.jail_name), so that no name can hold what a shell would run. FreeBSD's sh completes no arguments.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mobility import config

JAILS_D = config.DEFAULT_PATH.parent / "jails.d"
FILE, JAIL, OTHER = "file", "jail", "other"
"""What an argument is, where it is none of a few words."""
_NAME = "[A-Za-z0-9_][A-Za-z0-9_.-]*"
"""How a jail may be called (mobility.model.jail_name); jls(8) may print others, which jail(8) takes."""


@dataclass(frozen=True, slots=True)
class Argument:
    """What stands at a place: one of `words`, or the kind of thing that it is; `many`: once or more."""

    words: tuple[str, ...] = ()
    kind: str = OTHER
    many: bool = False


@dataclass(frozen=True, slots=True)
class Option:
    """An option, by all its names, and what has to follow it; None: nothing has to."""

    names: tuple[str, ...]
    help: str
    takes: Argument | None


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its options, and what stands after it."""

    name: str
    help: str
    options: tuple[Option, ...]
    arguments: tuple[Argument, ...]

    @property
    def flags(self) -> list[str]:
        """The names of all its options."""
        return [name for option in self.options for name in option.names]

    @property
    def valued(self) -> list[tuple[str, Argument]]:
        """Each name of an option that has to be followed by something, with that."""
        return [(name, each.takes) for each in self.options if each.takes is not None for name in each.names]


def commands(parser: argparse.ArgumentParser) -> Iterator[Command]:
    """Yield what comes before any command, named "", then each command of a parser."""
    # argparse has no other way to be asked
    yield Command("", "", _options(parser), ())
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            told = {each.dest: each.help or "" for each in action._choices_actions}
            for name, each in action.choices.items():
                places = tuple(_argument(one) for one in each._actions if not one.option_strings)
                yield Command(name, _sentence(told.get(name, "")), _options(each), places)


def _options(parser: argparse.ArgumentParser) -> tuple[Option, ...]:
    return tuple(
        Option(tuple(action.option_strings), _help(action), None if action.nargs in (0, "?") else _argument(action))
        for action in parser._actions
        if action.option_strings and action.help is not argparse.SUPPRESS
    )


def _argument(action: argparse.Action) -> Argument:
    many = action.nargs in ("*", "+")
    if action.choices is not None:
        return Argument(tuple(map(str, action.choices)), many=many)
    kind = FILE if action.type is Path else JAIL if action.dest in ("name", "names") else OTHER
    return Argument(kind=kind, many=many)


def _help(action: argparse.Action) -> str:
    text = (action.help or "") % {**vars(action), "prog": "mobility"}
    if text.startswith("default"):
        return (action.metavar or action.dest).lower() if isinstance(action.metavar, str | None) else ""
    return _sentence(text.partition(" (default")[0])


def _sentence(text: str) -> str:
    return text if text.endswith("...") else text.removesuffix(".")


def _quoted(text: str) -> str:
    """Return a text in single quotes, as fish reads them."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


# -- sh: what bash and tcsh share


def _core(found: list[Command]) -> list[str]:
    """Return statements of POSIX sh that print what may come after the words in "$@": each complete in its line, or joined.

    No eval, and nothing of what was typed is expanded again: it is only compared.
    """
    before, *rest = found
    lines = ["c=; n=0; v=; k=;", f'o="{" ".join(before.flags)}";', "for w do"]
    lines += ['if [ -n "$v" ]; then v=; continue; fi;', "case $w in", '-*) case $k in *" $w "*) v=$w;; esac;;']
    lines += ['*) if [ -n "$c" ]; then n=$((n + 1)); else c=$w;', "case $c in"]
    for each in rest:
        takes = "".join(f" {name}" for name, _ in each.valued)
        lines.append(f'{each.name}) o="{" ".join(each.flags)}"; k="{takes} ";;')
    lines += ["*) o=;; esac; fi;;", "esac; done;", 'j=; if [ -n "$v" ]; then', 'case "$c $v" in']
    for each in rest:
        lines += [f'"{each.name} {name}") echo {" ".join(what.words)};;' for name, what in each.valued if what.words]
        lines += [f'"{each.name} {name}") j=1;;' for name, what in each.valued if what.kind == JAIL]
    lines += ['esac; else if [ -z "$c" ]; then', f"echo {' '.join(each.name for each in rest)};"]
    lines += ['fi; printf "%s " $o; case "$c:$n" in']
    for each in rest:
        for place, what in enumerate(each.arguments):
            then = f"echo {' '.join(what.words)}" if what.words else "j=1" if what.kind == JAIL else ":"
            lines.append(f"{each.name}:{'*' if what.many else place}) {then};;")
    lines += ["esac; fi;", 'if [ -n "$j" ]; then {']
    lines += [f'for w in {JAILS_D}/*.toml; do w=${{w##*/}}; echo "${{w%.toml}}"; done;']
    lines += ["command -v jls >/dev/null 2>&1 && command jls name 2>/dev/null;"]
    lines += [f'}} | LC_ALL=C grep -Ex "{_NAME}"; fi;']
    return lines


def _of_files(found: list[Command]) -> list[str]:
    """Return the options that are followed by a file, in whichever command."""
    return sorted({name for each in found for name, what in each.valued if what.kind == FILE})


def bash(parser: argparse.ArgumentParser) -> str:
    """Return completion for bash, with or without the package bash-completion."""
    found = list(commands(parser))
    core = "\n        ".join(_core(found))
    return f"""# bash completion of mobility, made by `mobility completion bash`.

_mobility_words() {{
    (
        shopt -u failglob nullglob
        {core}
    )
}}

_mobility() {{
    local IFS=$' \\t\\n' current=${{COMP_WORDS[COMP_CWORD]}} previous= word words=()
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        # bash takes --option=value for three words
        [[ $word == "=" ]] || {{ words+=("$word") && previous=$word; }}
    done
    [[ $current != "=" ]] || current=
    COMPREPLY=()
    case $previous in
    {" | ".join(_of_files(found))})
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        ;;
    *)
        # none of these words has a character that compgen would expand
        mapfile -t COMPREPLY < <(compgen -W "$(_mobility_words "${{words[@]}}")" -- "$current")
        ;;
    esac
}}

complete -F _mobility mobility
"""


def tcsh(parser: argparse.ArgumentParser) -> str:
    """Return completion for tcsh, which has no functions: sh is asked, with the line in COMMAND_LINE (tcsh(1), complete)."""
    found = list(commands(parser))
    line = "set -f; case $COMMAND_LINE in *[[:blank:]]) set -- $COMMAND_LINE;; *) set -- ${COMMAND_LINE%[[:blank:]]*};; esac;"
    program = " ".join([line, "shift; set +f;", *_core(found)])
    rules = [f"'n/{name}/f/'" for name in _of_files(found)]
    rules.append("'p/*/`sh -c $_mobility_words:q`/'")
    return f"""# tcsh completion of mobility, made by `mobility completion tcsh`: source it in ~/.tcshrc.

set _mobility_words = '{program}'
complete mobility {" ".join(rules)}
"""


# -- zsh


def _zsh_text(text: str) -> str:
    """Return a text as it may stand in an argument of _arguments: within brackets, between colons."""
    for character in "\\[]:":
        text = text.replace(character, f"\\{character}")
    return text.replace("'", "'\\''")


def _zsh_value(what: Argument) -> str:
    if what.words:
        return f":value:({' '.join(what.words)})"
    return {FILE: ":file:_files", JAIL: ":jail:_mobility_jails"}.get(what.kind, ":value: ")


def _zsh_options(command: Command) -> list[str]:
    specs = []
    for option in command.options:
        told = f"[{_zsh_text(option.help)}]"
        value = "" if option.takes is None else _zsh_value(option.takes)
        if "--help" in option.names or "--version" in option.names:
            told = f"(- *)|{told}"
        apart, _, told = told.rpartition("|")
        specs += [f"'{apart}{name}{told}{value}'" for name in option.names]
    return specs


def zsh(parser: argparse.ArgumentParser) -> str:
    """Return completion for zsh, as a file of $fpath or to be sourced after compinit."""
    before, *rest = commands(parser)
    described = "\n            ".join(f"'{each.name}:{_zsh_text(each.help)}'" for each in rest)
    cases = []
    for each in rest:
        places = [
            f"'{'*' if what.many else place}{_zsh_value(what)}'" for place, what in enumerate(each.arguments, start=1)
        ]
        specs = " \\\n                ".join([*_zsh_options(each), *places])
        cases.append(f"{each.name})\n            _arguments \\\n                {specs}\n            ;;")
    body = "\n        ".join(cases)
    first = " \\\n        ".join(_zsh_options(before))
    return f"""#compdef mobility
# zsh completion of mobility, made by `mobility completion zsh`.

_mobility_jails() {{
    local -a names
    names=({JAILS_D}/*.toml(N:t:r))
    (( $+commands[jls] )) && names+=(${{(f)"$(command jls name 2>/dev/null)"}})
    names=(${{(M)names:#{_NAME.replace("]*", "]#")}}})
    compadd -a names
}}

_mobility() {{
    local context state state_descr line
    typeset -A opt_args
    _arguments -C \\
        {first} \\
        '1: :->command' \\
        '*:: :->rest' && return
    case $state in
    command)
        local -a described
        described=(
            {described}
        )
        _describe -t commands command described
        ;;
    rest)
        case $words[1] in
        {body}
        esac
        ;;
    esac
}}

if [[ $funcstack[1] == _mobility ]]; then
    _mobility "$@"
else
    compdef _mobility mobility
fi
"""


# -- fish


def fish(parser: argparse.ArgumentParser) -> str:
    """Return completion for fish."""
    before, *rest = commands(parser)
    lines = ["# fish completion of mobility, made by `mobility completion fish`.", _FISH.rstrip(), ""]
    lines.append("complete -c mobility -f")
    lines += _fish_options(before, "__mobility_at ''")
    for each in rest:
        lines.append(f"complete -c mobility -n \"__mobility_at ''\" -a {each.name} -d {_quoted(each.help)}")
    for each in rest:
        lines += _fish_options(each, f"__mobility_at {each.name}")
        valued = "".join(f" {name}" for name, _ in each.valued)
        for place, what in enumerate(each.arguments):
            words = " ".join(what.words) if what.words else "(__mobility_jails)" if what.kind == JAIL else ""
            if words:
                where = f"__mobility_at {each.name} {'-' if what.many else ''}{place}{valued}"
                lines.append(f"complete -c mobility -n '{where}' -a '{words}'")
    return "\n".join(lines) + "\n"


_FISH = f"""
function __mobility_jails
    begin
        for file in {JAILS_D}/*.toml
            string replace -r '^.*/(.*)\\.toml$' '$1' -- $file
        end
        command -sq jls; and command jls name 2>/dev/null
    end | string match -r '^{_NAME}$'
end

# COMMAND [PLACE [OPTION ...]]: whether that is the command of the line ('': it has none yet), and so many words stand
# behind it (-PLACE: or more), not counting options, nor what follows those that are named
function __mobility_at
    set -l words (commandline -opc)[2..-1]
    set -l command ''
    set -l count 0
    set -l value 0
    for word in $words
        if test $value = 1
            set value 0
        else if string match -q -- '-*' $word
            contains -- $word $argv[3..-1]; and set value 1
        else if test -z "$command"
            set command $word
        else
            set count (math $count + 1)
        end
    end
    test "$command" = "$argv[1]"; or return 1
    set -q argv[2]; or return 0
    if string match -q -- '-*' $argv[2]
        test $count -ge (string sub -s 2 -- $argv[2])
    else
        test $count -eq $argv[2]
    end
end
"""


def _fish_options(command: Command, where: str) -> list[str]:
    lines = []
    for option in command.options:
        flags = "".join(f" -l {name[2:]}" if name.startswith("--") else f" -s {name[1:]}" for name in option.names)
        match option.takes:
            case None:
                value = ""
            case Argument(kind="file"):
                value = " -r -F"
            case Argument(kind="jail"):
                value = " -x -a '(__mobility_jails)'"
            case Argument(words=words):
                value = f" -x -a '{' '.join(words)}'" if words else " -x"
        lines.append(f'complete -c mobility -n "{where}"{flags}{value} -d {_quoted(option.help)}')
    return lines


SHELLS: dict[str, Callable[[argparse.ArgumentParser], str]] = {"bash": bash, "zsh": zsh, "fish": fish, "tcsh": tcsh}
FILES = {"bash": "mobility.bash", "zsh": "_mobility", "fish": "mobility.fish", "tcsh": "mobility.tcsh"}
"""What each is called in deploy/completion."""


def write(parser: argparse.ArgumentParser, folder: Path) -> None:
    """Write the files of all shells into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for shell, name in FILES.items():
        (folder / name).write_text(SHELLS[shell](parser))
