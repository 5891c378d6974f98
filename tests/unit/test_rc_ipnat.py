"""`service ipnat`: its settings, what ipnat(8) is asked for, and what is said of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from jailng.cli import jailctl
from jailng.ctl import rcconf, rcipnat


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with an ipnat that writes down how it is called."""
    (tmp_path / "sbin").mkdir()
    monkeypatch.setattr(rcconf, "FILE", tmp_path / "default")
    monkeypatch.setitem(rcconf._DEFAULTS, "ipnat_rules", str(tmp_path / "ipnat.rules"))
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "sbin/jailctl")])
    program = tmp_path / "sbin/ipnat"
    program.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\ncat {tmp_path}/says 2>/dev/null\ntrue\n')
    program.chmod(0o755)
    return tmp_path


def asked(host: Path) -> list[str]:
    """What ipnat(8) was called with, the host's directory being HERE."""
    file = host / "asked"
    return file.read_text().replace(str(host), "HERE").splitlines() if file.exists() else []


def test_what_ipnat_is_asked_for(host: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (host / "ipnat.rules").write_text("")
    rcconf.FILE.write_text('ipnat_enable="YES"\nipnat_flags="-v -R"\n')
    for directive in ("start", "reload", "stop", "restart"):
        assert rcipnat.main([directive]) == 0
    started = "-CF -f HERE/ipnat.rules -v -R"
    assert asked(host) == [started, "-F -C -f HERE/ipnat.rules", "-F -C", "-F -C", started]
    assert capfd.readouterr().out == "Installing NAT rules.\n" * 2


def test_another_file(host: Path) -> None:
    (host / "other").write_text("")
    rcconf.FILE.write_text(f'ipnat_rules="{host}/other"\n')
    assert rcipnat.main(["onestart"]) == 0
    assert asked(host) == ["-CF -f HERE/other"]


def test_without_the_file(host: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert jailctl.main(["rcipnat", "onestart"]) == 1
    assert asked(host) == []
    assert capfd.readouterr().err == f"jailctl: {host}/ipnat.rules is not readable.\n"


def test_not_enabled(host: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert [rcipnat.main([word]) for word in ("start", "reload", "faststart", "quietstop")] == [0] * 4
    assert asked(host) == []
    assert capfd.readouterr().out.count("Cannot '") == 2
    assert rcipnat.main(["enabled"]) == 1
    assert rcipnat.main(["enable"]) == 0
    assert rcconf.FILE.read_text() == 'ipnat_enable="YES"\n'
    assert rcipnat.main(["enabled"]) == 0
    capfd.readouterr()
    assert rcipnat.main(["rcvar"]) == 0
    shown = '# ipnat : user interface to the NAT subsystem\n#\nipnat_enable="YES"\n#   (default: "NO")\n\n'
    assert capfd.readouterr().out == shown


@pytest.mark.parametrize(("says", "status"), [("List:\n\nList:\n", 3), ("List:\nmap\n\nList:\n", 0)])
def test_status(says: str, status: int, host: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (host / "says").write_text(says)
    assert rcipnat.main(["status"]) == status
    assert capfd.readouterr().out == says


def test_usage(host: Path, capfd: pytest.CaptureFixture[str]) -> None:
    usage = (
        "Usage: /etc/init.d/ipnat [fast|force|one|quiet]"
        "(start|stop|restart|rcvar|enable|disable|enabled|describe|extracommands|reload|status)\n"
    )
    assert jailctl.main(["rcipnat"]) == 1
    assert capfd.readouterr().err == usage
    assert jailctl.main(["rcipnat", "config"]) == 1
    assert capfd.readouterr().err == f"/etc/init.d/ipnat: unknown directive 'config'.\n{usage}"
