"""Rules of ipnat(5) and rctl.conf(5) that are loaded with the machine, under systemd and under SysV's init."""

from __future__ import annotations

from tests.kernel.booted import Machine, machine, package

__all__ = ["machine", "package"]

_RULE = "map ep0 192.168.10.2/32 -> 0.0.0.0/32"
_LISTED = f"List of active MAP/Redirect filters:\n{_RULE}\n\nList of active sessions:\n"
_NONE = "List of active MAP/Redirect filters:\n\nList of active sessions:\n"
_LIMIT = "jail:cell:maxproc:deny=100"
_FLUSHED = "0 entries flushed from NAT table\n{} entries flushed from NAT list\n"


def test_rules_are_loaded_with_the_machine(machine: Machine) -> None:
    (machine.top / "etc/ipnat.rules").write_text(f"{_RULE}\n")
    (machine.top / "etc/rctl.conf").write_text(f"# At most\n{_LIMIT} # processes\n")
    machine.chroot("jailctl", "rcipnat", "enable")
    machine.boot()
    assert machine.must("rctl") == f"{_LIMIT}\n"
    machine.must("service", "rctl", "stop")
    assert machine.must("rctl") == ""
    for directive in ("start", "restart"):
        machine.must("service", "rctl", directive)
        assert machine.must("rctl") == f"{_LIMIT}\n"
    assert machine.must("/etc/init.d/rctl", "onestop") == ""
    assert machine.must("rctl") == ""
    assert machine.must("ipnat", "-l") == _LISTED
    machine.must("jailctl", "rcipnat", "status")
    machine.must("service", "ipnat", "stop")
    assert machine.must("ipnat", "-l") == _NONE
    assert machine.run("jailctl", "rcipnat", "status").returncode == 3
    for directive in ("start", "reload", "restart"):
        machine.must("service", "ipnat", directive)
        assert machine.must("ipnat", "-l") == _LISTED
    assert machine.must("/etc/init.d/ipnat", "onestop") == _FLUSHED.format(1)
    started = f"Installing NAT rules.\n{_FLUSHED.format(0)}"
    assert machine.must("/etc/init.d/ipnat", "onestart") == started
    machine.shut_down()


def test_they_are_not_unless_it_is_said(machine: Machine) -> None:
    (machine.top / "etc/ipnat.rules").write_text(f"{_RULE}\n")
    machine.boot()
    assert machine.must("ipnat", "-l") == _NONE
    told = "Cannot 'start' ipnat. Set ipnat_enable to YES in /etc/default/jail or use 'onestart' instead of 'start'.\n"
    assert machine.must("/etc/init.d/ipnat", "start") == told
    machine.shut_down()


def test_service_does_what_it_is_asked(machine: Machine) -> None:
    """Also where systemd has the units as active already, or as inactive: it did nothing then, and said nothing."""
    rules, limits = machine.top / "etc/ipnat.rules", machine.top / "etc/rctl.conf"
    rules.write_text(f"{_RULE}\n")
    machine.boot()
    told = "Cannot 'start' ipnat. Set ipnat_enable to YES in /etc/default/jail or use 'onestart' instead of 'start'.\n"
    assert machine.must("service", "ipnat", "start") == told
    assert machine.must("service", "ipnat", "enable") == "ipnat enabled in /etc/default/jail\n"
    started = f"Installing NAT rules.\n{_FLUSHED}"
    assert machine.must("service", "ipnat", "start") == started.format(0)
    assert machine.must("service", "ipnat", "status") == _LISTED
    machine.must("nft", "flush", "ruleset")
    assert machine.run("service", "ipnat", "status").returncode == 3
    assert machine.must("service", "ipnat", "start") == started.format(0)
    assert machine.must("ipnat", "-l") == _LISTED
    limits.write_text(f"{_LIMIT}\n")
    machine.must("service", "rctl", "start")
    assert machine.must("rctl") == f"{_LIMIT}\n"
    machine.must("service", "rctl", "stop")
    assert machine.must("rctl") == ""
    if not (machine.top / "etc/inittab").exists():
        states = machine.must("systemctl", "show", "--value", "-p", "ActiveState", "ipnat", "rctl").split()
        assert states == ["active", "inactive"]
    machine.must("service", "rctl", "start")
    machine.must("service", "ipnat", "stop")
    assert machine.must("ipnat", "-l") == _NONE
    assert machine.must("rctl") == f"{_LIMIT}\n"
    machine.shut_down()
