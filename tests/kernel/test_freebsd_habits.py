"""What a FreeBSD administrator does without thinking, and what FreeBSD's own tests of jail(8) take for granted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel.conftest import Command

Shell = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def shell(checkout: Path, tmp_path: Path) -> Shell:
    """A line of sh(1) in a directory of its own, with the commands first in PATH."""
    here = tmp_path / "here"
    here.mkdir()

    def run(line: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": f"{checkout}/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        return subprocess.run(
            ["sh", "-c", line], cwd=here, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def _said(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_no_path_and_an_address_that_is_nowhere(shell: Shell, jls: Command) -> None:
    """The whole of the host's tree, and an address of which no interface knows."""
    jail = "name=cell persist ip4.addr=192.0.2.77"
    assert _said(shell(f"jail -c {jail}")) == ""
    assert jls("-j", "cell", "path", "ip4.addr").stdout == "/ 192.0.2.77\n"
    assert _said(shell("jail -r `jls -j cell jid`")) == ""
    assert _said(shell(f"jail -cm {jail}")) == ""
    before = jls("-j", "cell", "jid").stdout
    assert "created" not in _said(shell(f"jail -rc {jail}"))
    assert jls("-j", "cell", "jid").stdout != before
    assert _said(shell("jail -r cell")) == ""
    assert jls("-c", "-j", "cell").returncode == 1


def test_a_path_in_the_directory_where_one_is(shell: Shell, tmp_path: Path) -> None:
    """A configuration with a relative name, and a tree with nothing in it: hooks on the host need nothing in there."""
    text = 'exec.prestart = "echo before"; exec.poststart = "env"; exec.prestop = "echo after"; persist; cell { }'
    _said(shell(f"""echo '{text}' > ../jail.conf; echo "path = \\"$PWD\\";" >> ../jail.conf"""))
    lines = _said(shell("jail -f ../jail.conf -qc cell")).splitlines()
    assert lines[0] == "before"
    assert {"JNAME=cell", f"JPATH={tmp_path}/here"} <= set(lines)
    (jid,) = (line.removeprefix("JID=") for line in lines if line.startswith("JID="))
    assert _said(shell("jls -j cell jid")).strip() == jid
    assert _said(shell("jail -f ../jail.conf -qr cell")) == "after\n"
    _said(shell("jail -f ../jail.conf -qc cell"))
    assert _said(shell("jail -f ../jail.conf -qr $(jls -j cell jid)")) == "after\n"


@pytest.mark.parametrize(
    ("block", "asked", "shown"),
    [
        ("6000 { name = cell; persist; }", "6000", "6000 cell cell"),
        ('6000 { host.hostname = "${name}.x"; persist; }', "6000", "6000 6000 6000.x"),
        ("cell { jid = 6000; persist; }", "cell", "6000 cell cell"),
    ],
)
def test_numbers_and_names(shell: Shell, block: str, asked: str, shown: str) -> None:
    """Either may be the block's, and the other be given in it."""
    _said(shell(f"echo '{block}' > jail.conf"))
    assert _said(shell(f"jail -f jail.conf -c {asked}")) == f"{asked}: created\n"
    jid, name, host = _said(shell("jls -j 6000 jid name host.hostname")).split()
    assert [jid, name, host if host.endswith(".x") else name] == shown.split()
    assert _said(shell(f"jail -f jail.conf -r {asked}")) == f"{asked}: removed\n"


def test_hooks_of_a_jail_that_nobody_has_named(shell: Shell) -> None:
    assert _said(shell("jail -c path=/ exec.poststart='true' command=/usr/bin/true")) == ""
    done = shell("jail -c path=/ exec.poststart='echo $JID $JNAME' command=/usr/bin/true")
    jid, name = _said(done).split()
    assert jid == name


def test_the_number_is_still_known_when_the_jail_is_gone(shell: Shell) -> None:
    _said(shell("""echo "cell { path = /; exec.poststop = 'echo JID=\\$JID'; persist; }" > jail.conf"""))
    _said(shell("jail -f jail.conf -c cell"))
    jid = _said(shell("jls -j cell jid")).strip()
    assert _said(shell("jail -f jail.conf -r cell")) == f"cell: removed\nJID={jid}\n"


def test_what_belongs_to_a_jail_is_kept_in_it(shell: Shell) -> None:
    """meta and env: as a whole, by key, several at once, and in their order."""
    _said(shell("jail -c name=cell path=/ persist meta env"))
    assert _said(shell("jls -j cell meta env")) == '"" ""\n'
    _said(shell("jail -m name=cell meta.a=1 meta='x=y' meta.b== env='one two'"))
    assert _said(shell("jls -j cell meta.b env meta.a")) == "= one two \n"
    assert _said(shell("jls -j cell meta")) == "b==\nx=y\n"
    _said(shell("jail -m name=cell meta.b meta.x="))
    assert _said(shell("jls -j cell meta")) == "x=\n"
    assert _said(shell("jls -j cell --libxo json name meta.x meta.b")) == (
        '{"__version": "2", "jail-information": {"jail": [{"name":"cell","meta.x":""}]}}\n'
    )
    done = shell(f"jail -m name=cell meta={'m' * 4096}")
    assert (done.returncode, "too large" in done.stderr) == (1, True)
    _said(shell("jail -r cell"))


def test_a_clean_environments_program_is_where_a_login_class_has_it(
    jail: Command, jexec: Command, small_root: Path
) -> None:
    """PATH is as the manual has it; FreeBSD finds ifconfig(8) all the same, and BastilleBSD calls it so."""
    for place in ("usr/lib/jailng/shims", "sbin", "usr/sbin", "usr/local/bin", "usr/local/sbin"):
        (small_root / place).mkdir(parents=True, exist_ok=True)
    for name, place in (("one", "sbin"), ("two", "usr/local/sbin"), ("uptime", "usr/lib/jailng/shims")):
        (small_root / place / name).write_text("#!/bin/sh\necho $0 $PATH $*\n")
        (small_root / place / name).chmod(0o755)
    made = jail("-c", "name=cell", f"path={small_root}", "persist", "exec.clean", "exec.start=two started")
    try:
        assert _said(made) == "/usr/local/sbin/two /bin:/usr/bin started\n"
        assert _said(jexec("-l", "cell", "one", "-an")) == "/sbin/one /bin:/usr/bin -an\n"
        assert _said(jexec("-l", "-U", "alice", "cell", "two")) == "/usr/local/sbin/two /bin:/usr/bin\n"
        assert _said(jexec("-l", "cell", "uptime")) == "/usr/lib/jailng/shims/uptime /bin:/usr/bin\n"
        assert "load average" in _said(jexec("cell", "uptime"))
        # Who says where, means it.
        done = jexec("-l", "-e", "PATH=/usr/bin", "cell", "one")
        assert (done.returncode, done.stderr) == (1, "jexec: execvp: one: No such file or directory\n")
        done = jexec("-l", "cell", "nothing")
        assert (done.returncode, done.stderr) == (1, "jexec: execvp: nothing: No such file or directory\n")
    finally:
        assert jail("-r", "cell").returncode == 0
