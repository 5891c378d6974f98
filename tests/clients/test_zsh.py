"""zsh's own completion of jexec, jls and jail, as Debian ships it: what stands on the line after a TAB."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import PATH, Cell
from tests.zsh import Zsh

# FreeBSD's commands as zsh knows them, not the completions that jailng has.
_OWN = "fpath=( ${fpath:#*/vendor-completions} )"


@pytest.fixture
def zsh(tmp_path: Path) -> Iterator[Zsh]:
    """As somebody has it who types on Linux."""
    made = Zsh(tmp_path, PATH, _OWN)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("jexec c", "jexec cell "),  # _jails: jls name name
        ("jexec -U alice ce", "jexec -U alice cell "),
        ("jexec cell only-in-c", "jexec cell only-in-cell "),  # jls -j cell path
        ("jls -j c", "jls -j cell "),
        ("jls children.m", "jls children.max "),  # sysctl -N security.jail.param
        ("jls host.hostn", "jls host.hostname "),
        ("jail -r ce", "jail -r cell "),
        ("jail -m name=c", "jail -m name=cell "),
        ("jail -c depend=c", "jail -c depend=cell "),
    ],
)
def test_completion(zsh: Zsh, cell: Cell, typed: str, line: str) -> None:
    command = cell.root / "usr/bin/only-in-cell"
    command.touch(mode=0o755)
    assert zsh.complete(typed) == line
    command.unlink()


@pytest.fixture
def freebsd(tmp_path: Path) -> Iterator[Zsh]:
    """Where $OSTYPE says FreeBSD: there _sysctl takes its names from sysctl(8), not from /proc/sys."""
    made = Zsh(tmp_path, PATH, f"{_OWN}; OSTYPE=freebsd15.0")
    yield made
    made.close()


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("sysctl sec.j.jaile", "sysctl security.jail.jailed="),  # sysctl -aN
        ("sysctl -d security.jail.param.children.m", "sysctl -d security.jail.param.children.max="),
        ("sysctl jail.set_h", "sysctl jail.set_hostname_allowed="),
        ("sysctl kern.hostn", "sysctl kern.hostname="),
        ("sysctl net.ipv4.ip_forw", "sysctl net.ipv4.ip_forward"),
        ("jls host.hostn", "jls host.hostname "),
        ("jail -r ce", "jail -r cell "),
    ],
)
def test_completion_as_on_freebsd(freebsd: Zsh, cell: Cell, typed: str, line: str) -> None:
    assert freebsd.complete(typed) == line
