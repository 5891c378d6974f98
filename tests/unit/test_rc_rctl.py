"""`service rctl`: which rules of which file rctl(8) is asked for, and what is said of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from jailng.cli import jailctl
from jailng.ctl import rcconf, rcrctl
from jailng.limits import database
from jailng.limits.rule import parse

CONF = """\
# Resource limits, as rctl.conf(5) has them.
jail:www:maxproc:deny=100 # At most 100 processes

  jail:db:memoryuse:deny=1g
   # no rule
#jail:no:maxproc:deny=1
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without rules, with an rctl that writes down how it is called."""
    (tmp_path / "sbin").mkdir()
    monkeypatch.setattr(rcconf, "FILE", tmp_path / "default")
    monkeypatch.setitem(rcconf._DEFAULTS, "rctl_rules", str(tmp_path / "rctl.conf"))
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "sbin/jailctl")])
    monkeypatch.setattr(database, "read", list)
    program = tmp_path / "sbin/rctl"
    program.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n[ ! -e {tmp_path}/fails ]\n')
    program.chmod(0o755)
    return tmp_path


def asked(host: Path) -> list[str]:
    file = host / "asked"
    return file.read_text().splitlines() if file.exists() else []


def test_what_rctl_is_asked_for(host: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    (host / "rctl.conf").write_text(CONF)
    for directive in ("start", "faststart", "restart", "stop"):
        assert rcrctl.main([directive]) == 0
    added = "-a -- jail:www:maxproc:deny=100 jail:db:memoryuse:deny=1g"
    assert asked(host) == [added] * 3
    monkeypatch.setattr(database, "read", lambda: [parse("jail:x:maxproc:deny=1")])
    for directive in ("restart", "stop"):
        assert rcrctl.main([directive]) == 0
    assert asked(host)[3:] == ["-r :", added, "-r :"]
    assert capfd.readouterr().out == ""


def test_without_rules_nothing_is_asked(host: Path) -> None:
    assert rcrctl.main(["start"]) == 0
    (host / "rctl.conf").write_text("# none\n\n")
    assert rcrctl.main(["start"]) == 0
    assert asked(host) == []


def test_what_fails_is_told_by_the_status(host: Path) -> None:
    (host / "rctl.conf").write_text(CONF)
    (host / "fails").touch()
    assert rcrctl.main(["start"]) == 1


def test_another_file_and_not_enabled(host: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (host / "other").write_text("jail:a:nthr:log=1")
    rcconf.FILE.write_text(f'rctl_enable="NO"\nrctl_rules="{host}/other"\n')
    assert [rcrctl.main([word]) for word in ("start", "faststart", "quietstop")] == [0] * 3
    assert asked(host) == []
    assert capfd.readouterr().out == (
        f"Cannot 'start' rctl. Set rctl_enable to YES in {host}/default or use 'onestart' instead of 'start'.\n"
    )
    assert rcrctl.main(["onestart"]) == 0
    assert asked(host) == ["-a -- jail:a:nthr:log=1"]


def test_it_is_enabled_unless_it_is_said(host: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert rcrctl.main(["enabled"]) == 0
    assert rcrctl.main(["rcvar"]) == 0
    shown = '# rctl : Manage resource limits\n#\nrctl_enable="YES"\n#   (default: "YES")\n\n'
    assert capfd.readouterr().out == shown
    assert rcrctl.main(["disable"]) == 0
    assert rcconf.FILE.read_text() == 'rctl_enable="NO"\n'
    assert rcrctl.main(["enabled"]) == 1


def test_usage(host: Path, capfd: pytest.CaptureFixture[str]) -> None:
    usage = (
        "Usage: /etc/init.d/rctl [fast|force|one|quiet]"
        "(start|stop|restart|rcvar|enable|disable|enabled|describe|extracommands)\n"
    )
    assert jailctl.main(["rcrctl"]) == 1
    assert capfd.readouterr().err == usage
