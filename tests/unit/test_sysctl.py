"""sysctl(8): which variables there are, how they are shown, and what a word means."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailng.ctl import mib, sysctl
from jailng.engine import defaults
from jailng.errors import UsageError
from jailng.params import table


def run(*words: str, real: str | None = None) -> int:
    return sysctl.answer(list(words), real)


def test_every_parameter_that_freebsd_could_have_is_a_variable() -> None:
    names = [variable.name for variable in mib.variables()]
    assert len(names) == len(set(names))
    for name in table.names():
        row = table.lookup(name)
        assert row is not None
        there = f"security.jail.param.{name}" in names
        assert there is not (row.pseudo or name.startswith("ng."))


def test_what_is_below_a_node_follows_it() -> None:
    """As a walk over FreeBSD's tree has it, where a parameter with others below it is a nameless one among them."""
    names = [variable.name for variable in mib.variables()]
    for variable in mib.variables():
        below = [names.index(name) for name in names if name.startswith(variable.name + ".")]
        if variable.kind == mib.NODE:
            first = names.index(variable.name) + 1
            assert below == list(range(first, first + len(below))), variable.name
        else:
            assert not below, variable.name
    at = names.index("security.jail.param.ip4")
    assert [name.rpartition("param.")[2] for name in names[at : at + 4]] == ["ip4", "ip4.", "ip4.addr", "ip4.saddrsel"]
    assert names[-3:] == ["jail.set_hostname_allowed", "jail.socket_unixiproute_only", "jail.sysvipc_allowed"]


def test_the_defaults_are_those_of_parameters() -> None:
    names = [variable.name.rpartition("security.jail.")[2] for variable in mib.variables()]
    settable = [name for name in names if name.endswith(("_allowed", "_only")) and "." not in name]
    assert len(settable) > 5
    for name in settable:
        assert table.resolve(defaults.parameter_of(name)) is not None


@pytest.mark.parametrize(
    ("words", "output"),
    [
        ("-N security.jail.children", "security.jail.children.max\nsecurity.jail.children.cur\n"),
        ("-n security.jail.children.max", "999999\n"),
        ("-e security.jail.children.max", "security.jail.children.max=999999\n"),
        ("-x security.jail.children.max", "security.jail.children.max: 0x000f423f\n"),
        ("-x security.jail.param.jid", "security.jail.param.jid: 0000000000\n"),  # as printf(3) has %#010x
        ("security.jail.param.path", "security.jail.param.path: 4096\n"),
        ("security.jail.param.host.hostname.", "security.jail.param.host.hostname: 65\n"),
        ("security.jail.param.ip4.", "security.jail.param.ip4.: 0\nsecurity.jail.param.ip4.saddrsel: 0\n"),
        ("security.jail.param.ip4.addr", ""),  # opaque
        (
            "-o security.jail.param.ip4.addr",
            "security.jail.param.ip4.addr: Format:S,in_addr,a Length:8 Dump:0x0400000000000000\n",
        ),
        ("-N security.jail.param.ip4.addr", "security.jail.param.ip4.addr\n"),
        ("-d security.jail.jailed", "security.jail.jailed: Process in jail?\n"),
        ("-dn security.jail.jailed", "Process in jail?\n"),
        ("-t security.jail.env", "security.jail.env: string\n"),
        ("-td kern.hostid", "kern.hostid: unsigned long: Host ID\n"),
        (
            "-d security.jail.children",
            (
                "security.jail.children: Limits and stats of child jails\n"
                "security.jail.children.max: Maximum number of child jails\n"
                "security.jail.children.cur: Current number of child jails\n"
            ),
        ),
        ("-WN security.jail.children kern.securelevel", "kern.securelevel\n"),
        ("-TN security.jail.param.path security.jail.param.persist", "security.jail.param.path\n"),
        ("-in kern.none security.jail.children.max", "999999\n"),
    ],
)
def test_forms(capsys: pytest.CaptureFixture[str], words: str, output: str) -> None:
    run(*words.split())
    assert capsys.readouterr().out == output


def test_raw(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    run("-b", "security.jail.children.max", "security.jail.param.path")
    assert capfdbinary.readouterr().out == (999999).to_bytes(4, "little") + b"4096\0"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("kern.none", "unknown oid 'kern.none'"),
        ("security.jail.none=1", "unknown oid 'security.jail.none'"),
        ("security.jail.jailed=1", "oid 'security.jail.jailed' is read only"),
        ("security.jail.devfs_ruleset=1", "oid 'security.jail.devfs_ruleset' is read only"),
        ("security.jail=1", "oid 'security.jail' isn't a leaf node"),
        ("security.jail.enforce_statfs=", "empty numeric value"),
        ("security.jail.enforce_statfs=two", "invalid integer 'two'"),
        ("security.jail.enforce_statfs=1_0", "invalid integer '1_0'"),
        ("security.jail.meta_maxbufsize=-", "invalid uint32_t '-'"),
        ("kern.\x1b[2J", "unknown oid 'kern.\\x1b[2J'"),
    ],
)
def test_errors(capsys: pytest.CaptureFixture[str], words: str, error: str) -> None:
    assert run(words) == 1
    assert capsys.readouterr() == ("", f"sysctl: {error}\n")
    assert run("-q", words) == 1
    assert capsys.readouterr().err == ("" if error.startswith("unknown") else f"sysctl: {error}\n")


@pytest.mark.parametrize("letter", ["-T", "-W"])
def test_a_listing_of_those_that_can_be_set_sets_none(capsys: pytest.CaptureFixture[str], letter: str) -> None:
    """It is told, and not left to the host's own, which does not know the option."""
    assert run(letter, "security.jail.enforce_statfs=1") == 1
    assert capsys.readouterr() == ("", "sysctl: Can't set variables when using -T or -W\n")


def test_unknown_ones_are_ignored(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-i", "kern.none") == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "words", ["", "-z kern.hostname", "kernel.ostype", "-p", "--system", "-r kern", "-nN kern.hostname"]
)
def test_what_is_for_the_host_s_own(words: str) -> None:
    with pytest.raises(UsageError):
        run(*words.split())


def test_words_for_both_are_answered_in_their_order(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    real = tmp_path / "sysctl"
    real.write_text('#!/bin/sh\necho real "$@"\nexit 3\n')
    real.chmod(0o755)
    words = ["-ni", "net.x", "security.jail.children.max", "vm.y=1"]
    assert run(*words, real=str(real)) == 2
    assert capfd.readouterr().out == "real -n -e net.x\n999999\nreal -n -e vm.y=1\n"
    assert subprocess.run([real], check=False).returncode == 3


def test_all_is_the_host_s_own_and_then_ours(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    real = tmp_path / "sysctl"
    real.write_text('#!/bin/sh\necho kernel.hostname = "$@"\n')
    real.chmod(0o755)
    assert run("-a", real=str(real)) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "kernel.hostname = -a"
    assert [line.partition(":")[0] for line in lines[-3:]] == [
        "jail.set_hostname_allowed",
        "jail.socket_unixiproute_only",
        "jail.sysvipc_allowed",
    ]


@pytest.mark.parametrize(
    ("word", "name", "value"),
    [
        ("a.b", "a.b", None),
        ("a.b=1", "a.b", "1"),
        ("a.b: 1", "a.b", "1"),
        (" a.b = 'x y'", " a.b", "x y"),
        ('a.b="x=y"', "a.b", "x=y"),
        ('a.b="x', "a.b", "x"),
        ("a.b=", "a.b", ""),
    ],
)
def test_words(word: str, name: str, value: str | None) -> None:
    assert sysctl._split(word) == (name, value)


@given(st.integers(-(2**40), 2**40))
def test_numbers(number: int) -> None:
    sign, size = "-" if number < 0 else "", abs(number)
    for text in (f"{sign}{size}", f"{sign}{size:#x}", f"{sign}0{size:o}"):
        assert sysctl._strtol(text) == number


def test_names_that_there_are_not_are_counted(capfd: pytest.CaptureFixture[str]) -> None:
    assert sysctl.main(["--json", "security.nope", "security.jail.jailed", "jail.nope"]) == 2
    assert capfd.readouterr().err == "sysctl: unknown oid 'security.nope'\nsysctl: unknown oid 'jail.nope'\n"
