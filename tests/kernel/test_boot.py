"""Jails that start with the machine and are stopped before it stops, under systemd and under SysV's init: rc.jail(8).

jailng is there from its package, on a Debian that boots in a container (booted.py).
"""

from __future__ import annotations

import pytest

from tests.kernel.booted import Machine, five, machine, package
from tests.kernel.fivejails import ENDED, NAMES, STARTED, log

__all__ = ["five", "machine", "package"]


def test_five_jails_start_in_order_and_see_their_own_shutdown(five: Machine) -> None:
    five.boot()
    assert five.must("jls", "name").split() == list(NAMES)
    assert log(five.top) == STARTED
    for jid, name in enumerate(NAMES, 1):
        assert five.must("cat", f"/run/jail_{name}.id") == f"{jid}\n"
    five.shut_down()
    assert log(five.top) == [*STARTED, *ENDED]


def test_service_speaks_as_freebsds(five: Machine) -> None:
    """Debian's service(8) hands on what it knows to systemd, without the names."""
    five.boot()
    for words, told in (
        ("stop mail", "Stopping jails: mail.\n"),
        ("stop mail", "Stopping jails:.\n"),
        ("start mail", "Starting jails: mail.\n"),
        ("restart www", "Stopping jails: www.\nStarting jails: www.\n"),
        ("onestart mail", "Starting jails: mail.\n"),  # which www has taken along
        ("onestop mail www", "Stopping jails: mail www.\n"),
        ("onerestart db", "Stopping jails: db.\nStarting jails: db.\n"),
        ("config db", "db: parameters are in /etc/jail.conf.\n"),
        ("oneconfig db", "db: parameters are in /etc/jail.conf.\n"),
        ("console db hostname", "db\n"),
        ("oneconsole db hostname", "db\n"),
        ("start", "Starting jails: db cache app www mail.\n"),
        ("onestop", "Stopping jails: db cache app www mail.\n"),
    ):
        assert five.must("service", "jail", *words.split()) == told, words
    assert five.run("service", "jail", "status").returncode == 3
    five.must("service", "jail", "start", "cache")
    assert five.must("service", "jail", "status") == five.must("jls", "-N") != ""
    five.must("service", "jail", "status", "db")
    assert five.run("service", "jail", "status", "db", "www").returncode == 3
    assert five.run("service", "jail").stderr.startswith("Usage: /etc/init.d/jail [fast|force|one|quiet](start|")


def test_a_service_that_is_not_jail_is_debians(five: Machine) -> None:
    five.boot()
    for words in (("--version",), ("--status-all",), ("nothing", "start"), ("ready", "other"), ()):
        ours, debians = five.run("service", *words), five.run("/usr/sbin/service.distrib", *words)
        got = [
            (done.returncode, done.stdout, done.stderr.replace("service.distrib", "service"))
            for done in (ours, debians)
        ]
        assert got[0] == got[1], words


def test_a_jail_that_does_not_start_keeps_none_from_its_shutdown(five: Machine) -> None:
    with open(five.top / "etc/jail.conf", "a") as file:
        file.write("broken { path = /nowhere; }\n")
    five.boot()
    assert five.must("jls", "name").split() == list(NAMES)
    told = five.run("service", "jail", "start", "broken")
    assert told.returncode == 1
    assert told.stdout == (
        'Starting jails: cannot start jail  "broken": \njail: broken: path /nowhere: No such file or directory\n.\n'
    )
    five.shut_down()
    assert log(five.top) == [*STARTED, *ENDED]


def test_nothing_is_done_unless_enabled(five: Machine) -> None:
    (five.top / "etc/default/jail").write_text("")
    five.boot()
    assert five.must("jls", "name") == ""
    assert "jail_enable" not in five.console
    how = "Set jail_enable to YES in /etc/default/jail or use 'one{0}' instead of '{0}'.\n"
    for directive in ("start", "stop", "restart", "config", "console"):
        told = f"Cannot '{directive}' jail. {how.format(directive)}"
        assert five.must("service", "jail", directive, "db") == told
    assert five.must("service", "jail", "onestart", "") == "Starting jails: db cache app www mail.\n"  # Salt's all
    assert five.must("/etc/init.d/jail", "onestop", "") == "Stopping jails: db cache app www mail.\n"
    assert five.must("service", "jail", "enable") == "jail enabled in /etc/default/jail\n"
    assert five.must("service", "jail", "start", "db") == "Starting jails: db.\n"
    assert five.must("service", "jail", "disable") == "jail disabled in /etc/default/jail\n"
    five.shut_down()
    assert log(five.top)[-1] == "db: service ends"  # as on FreeBSD: by the SIGTERM that everybody gets


def test_units_of_systemd(five: Machine) -> None:
    if (five.top / "etc/inittab").exists():
        pytest.skip("this machine has none")
    five.boot()
    five.must("service", "jail", "stop")
    left = five.must("systemctl", "show", "--value", "-p", "Job", "-p", "ActiveState", "jail.service").split()
    assert left != ["active"]  # it follows, or has done so
    for words, running in (
        ("start jail", NAMES),
        ("restart jail", NAMES),
        ("stop jail", ()),
        ("start jail@app", ("db", "cache", "app")),
        ("start jail@db", ("db", "cache", "app")),
        ("stop jail@cache", ("db", "cache", "app")),  # which was never started as a unit
        ("stop jail@app", ("db", "cache")),
    ):
        five.must("systemctl", *words.split())
        assert set(five.must("jls", "name").split()) == set(running), words
    assert five.run("systemctl", "start", "jail@nothing").returncode == 1
    five.shut_down()
    assert log(five.top)[-4:] == [
        f"{name}: {what}" for name in ("cache", "db") for what in ("service ends", "shut down")
    ]


def test_what_a_jail_says_is_no_emergency(five: Machine) -> None:
    """By what a line begins with, journald would take it for one, and show it on every terminal (ForwardToWall)."""
    if (five.top / "etc/inittab").exists():
        pytest.skip("this machine has none")
    with open(five.top / "etc/jail.conf", "a") as file:
        file.write("loud { path = /jail/db; exec.start = 'echo \"<0>help\"; false'; }\n")
    five.boot()
    assert five.run("systemctl", "start", "jail@loud").returncode == 1
    five.must("journalctl", "--sync")
    told = five.must("journalctl", "-o", "cat", "-u", "jail@loud.service", "-u", "jail.service")
    assert told.count("<0>help\n") == 2
    assert five.must("journalctl", "-q", "-p", "emerg", "-o", "cat") == ""


def test_a_start_right_after_a_stop(five: Machine) -> None:
    """systemd follows what was stopped by hand: its own stop came upon jails that were just being started."""
    five.boot()
    for _ in range(3):
        five.must("sh", "-c", "service jail stop && service jail start")
        if not (five.top / "etc/inittab").exists():
            five.must("sh", "-c", "until systemctl list-jobs --no-legend | wc -l | grep -q ^0; do sleep 0.1; done")
        assert five.must("jls", "name").split() == list(NAMES)


def test_a_line_in_rc_local(machine: Machine) -> None:
    """The article's way. There is no /etc/jail.conf."""
    (machine.top / "etc/default/jail").write_text("jail_enable=yes\n")
    script = machine.top / "etc/rc.local"
    script.write_text(
        "#!/bin/sh\nip link set lo up\nip address add 192.0.2.10/32 dev lo\n"
        "jail /jail/db cell.example.org 192.0.2.10 /bin/sh /etc/rc\n"
        ": >/srv/local\n"
    )
    script.chmod(0o755)
    machine.boot()
    machine.until("srv/local")
    if (machine.top / "etc/inittab").exists():
        machine.must("service", "rc.local", "stop")
    else:
        machine.must("systemctl", "stop", "rc-local.service")
    assert machine.must("jls", "host.hostname", "ip4.addr") == "cell.example.org 192.0.2.10\n"
    jid = machine.must("jls", "jid").strip()
    pid = machine.must("jexec", jid, "cat", "/run/service.pid").strip()
    assert machine.must("jexec", jid, "cat", f"/proc/{pid}/cmdline") == "/bin/sh\0/etc/service\0"
    machine.shut_down()
    log = (machine.top / "jail/db/log/order").read_text().splitlines()
    assert log == ["cell.example.org: started", "cell.example.org: service ends"]


def test_networkd_leaves_the_interfaces_of_jails_alone(machine: Machine) -> None:
    """Also where a file of the administrator's is for every Ethernet interface."""
    if (machine.top / "etc/inittab").exists():
        pytest.skip("this machine has none")
    (machine.top / "etc/systemd/network/10-all.network").write_text(
        "[Match]\nType=ether\n[Network]\nAddress=198.51.100.1/24\n"
    )
    machine.boot()
    machine.must("mount", "-o", "remount,bind,ro", "/sys")  # networkd would wait for udev, which is not there
    machine.must("ip", "link", "add", "ep0", "type", "veth", "peer", "name", "ep1")
    for name in ("ep0", "ep1"):
        machine.must("ip", "link", "set", name, "up")
    machine.must("jail", "-c", "name=cell", "path=/jail/db", "ip4.addr=ep0|192.0.2.10", "persist")
    machine.must("systemctl", "start", "systemd-networkd")
    machine.must("/usr/lib/systemd/systemd-networkd-wait-online", "--timeout=120", "-i", "ep0")
    host, jail = (machine.must("ip", "-brief", "address", "show", "dev", name) for name in ("ep0", "jng1"))
    assert "198.51.100.1/24" in host and "198.51.100.1/24" not in jail
    assert "dev jng1" in machine.must("ip", "route", "get", "192.0.2.10")
    machine.must("jail", "-r", "cell")
    machine.shut_down()
