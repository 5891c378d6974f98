"""vim's colours for jail.conf(5): the names are the table's, and each thing is what it is."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from jailng.params.table import lookup, names, negated

SHARE = Path(__file__).resolve().parents[2] / "share"
_SAMPLE = """\
$net = 192.0.2; # remark
exec.start = "sh /etc/rc $net", 'a\\'$b';
cell {
	persist; allow.nomount;
	path = /jail//remark
		;
	ip4.addr += 192.0.2.1, $net;
	meta.owner = me; nosuchthing = 1;
	/* remark */ vnet = inherit;
}
.include "x.conf";
"""
# Line, text on it, and the group that it belongs to.
_EXPECTED = [
    (1, "$net", "jailconfDefinition"), (1, "192", "jailconfNumber"), (1, "remark", "jailconfComment"),
    (2, "exec.start", "jailconfParameter"), (2, "sh /", "jailconfString"), (2, "$net", "jailconfVariable"),
    (2, "'a", "jailconfRaw"), (2, "\\'", "jailconfEscape"), (2, "$b", "jailconfRaw"),
    (3, "cell", "jailconfBlock"),
    (4, "persist", "jailconfParameter"), (4, "allow.nomount", "jailconfNegated"),
    (5, "path", "jailconfParameter"), (5, "remark", "jailconfComment"),
    (7, "ip4.addr", "jailconfParameter"), (7, "+=", "jailconfSign"), (7, "$net", "jailconfVariable"),
    (8, "meta.owner", "jailconfKey"), (8, "nosuchthing", "jailconfName"), (8, "1;", "jailconfNumber"),
    (9, "remark", "jailconfComment"), (9, "vnet", "jailconfParameter"), (9, "inherit", "jailconfWord"),
    (11, ".include", "jailconfDirective"), (11, "x.conf", "jailconfString"),
]  # fmt: skip


@pytest.fixture(scope="module")
def syntax(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The syntax file as it is installed."""
    made = tmp_path_factory.mktemp("vim") / "jailconf.vim"
    made.write_text(subprocess.run([SHARE / "generate", "vim"], check=True, stdout=subprocess.PIPE, text=True).stdout)
    return made


def test_its_names_are_those_of_the_table(syntax: Path) -> None:
    found = dict[str, set[str]]()
    for group, name in re.findall(r"^syn keyword (\w+) (\S+) contained$", syntax.read_text(), re.MULTILINE):
        found.setdefault(group, set()).add(name)
    table = [parameter for name in names() if (parameter := lookup(name)) is not None and not parameter.read_only]
    assert found == {
        "jailconfParameter": {parameter.name for parameter in table},
        "jailconfNegated": {negated(parameter.name) for parameter in table if parameter.kind == "bool"},
    }


def _vim(*commands: str) -> None:
    if shutil.which("vim") is None:
        pytest.skip("vim is not installed")
    argv = ["vim", "-es", "-N", "-u", "NONE", "-i", "NONE", *(f"+{command}" for command in commands), "+qa!"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_things_are_shown_as_what_they_are(syntax: Path, tmp_path: Path) -> None:
    sample, answers = tmp_path / "sample", tmp_path / "answers"
    sample.write_text(_SAMPLE)
    lines = _SAMPLE.splitlines()
    asked = [f"synIDattr(synID({line}, {lines[line - 1].index(text) + 1}, 1), 'name')" for line, text, _ in _EXPECTED]
    script = tmp_path / "ask.vim"
    script.write_text(f"call writefile([{', '.join(asked)}], '{answers}')\n")
    _vim("syntax on", f"edit {sample}", f"source {syntax}", f"source {script}")
    assert list(zip(_EXPECTED, answers.read_text().split(), strict=True)) == [
        (expected, expected[2]) for expected in _EXPECTED
    ]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("jail.conf", "jailconf"), ("jail.web.conf", "jailconf"), ("jail.conf.d/web.conf", "jailconf"),
        ("fail2ban/jail.conf", ""), ("x.conf", ""),
    ],
)  # fmt: skip
def test_files_that_it_is_for(tmp_path: Path, path: str, kind: str) -> None:
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).touch()
    answer = tmp_path / "answer"
    detect = f"source {SHARE}/vim/ftdetect/jailconf.vim"
    _vim(detect, f"edit {tmp_path / path}", f"call writefile([&filetype], '{answer}')")
    assert answer.read_text().strip() == kind
