"""jailctl doctor: what it says of a host, sound or spoilt; each remedy that it names is tried."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jailng.core import firewall, registry
from jailng.ctl import diagnosis, netkernel
from jailng.ctl.doctor import CHECKS
from jailng.linux import rtnetlink
from jailng.linux.netlink import Netlink
from tests.kernel.conftest import Command
from tests.kernel.networks import Namespace, attach, inside, ip, reaches, run, set_switch, settle, switch, until_up
from tests.kernel.stage import MS_BIND, MS_REC, mount, unmount

FOUR, SIX = "198.51.100.10", "2001:db8:1::10"
# Checks of which the outcome is the machine's.
MACHINES = ("confinement", "limits", "hardening", "quota")
DROPPING = """
table inet filter {
    chain input { type filter hook input priority filter; policy accept; }
    chain forward { type filter hook forward priority filter; policy drop; }
}
"""


@pytest.fixture
def still() -> Iterator[None]:
    """A host that forwards nothing; a new network namespace has that of the machine's first, where lxc may want it."""
    before = switch("ipv4/ip_forward")
    set_switch("ipv4/ip_forward", "0")
    yield
    set_switch("ipv4/ip_forward", before)


@pytest.fixture
def lan(still: None) -> Iterator[Namespace]:
    with attach("ep0", ("198.51.100.1/24", "2001:db8:1::1/64"), ("198.51.100.2/24", "2001:db8:1::2/64")) as made:
        ip(f"address add {FOUR}/24 dev ep0", f"address add {SIX}/64 dev ep0 nodad preferred_lft 0")
        ip("route add default via 198.51.100.2", "route add default via 2001:db8:1::2")
        yield made


@pytest.fixture
def cell(lan: Namespace, jail: Command, small_root: Path) -> Iterator[str]:
    """A jail with both addresses."""
    done = jail("-c", "name=cell", f"path={small_root}", f"ip4.addr={FOUR}", f"ip6.addr={SIX}", "persist")
    assert (done.returncode, done.stderr) == (0, "")
    yield "cell"
    jail("-r", "cell")


@pytest.fixture
def doctor(checkout: Path) -> Doctor:
    return Doctor(checkout)


class Doctor:
    """``jailctl doctor``, on a PATH that has the commands."""

    def __init__(self, checkout: Path) -> None:
        self.argv = [f"{checkout}/bin/jailctl", "doctor"]
        self.environment = {**os.environ, "PATH": f"{checkout}/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        argv, env = [*self.argv, *words], {**self.environment, **environment}
        return subprocess.run(argv, capture_output=True, text=True, env=env)

    def findings(self, check: str, status: int = 1) -> list[dict[str, Any]]:
        """What a check finds; that it is alone in finding anything is not said."""
        done = self.run("--json", check)
        assert (done.returncode, done.stderr) == (status, "")
        (found,) = json.loads(done.stdout)["checks"]
        assert found["check"] == check
        findings: list[dict[str, Any]] = found["findings"]
        return findings

    def mend(self, finding: dict[str, Any]) -> None:
        for line in finding["remedy"]:
            done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, env=self.environment)
            assert done.returncode == 0, (line, done.stderr)


def test_a_sound_host(cell: str, doctor: Doctor) -> None:
    settle("ep0")
    until_up(_interface())
    before = run("nft", "list", "ruleset"), run("ip", "route", "show", "table", "all"), switch("ipv4/ip_forward")
    done = doctor.run()
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert {line[0] for line in lines if line[1] not in MACHINES} == {"ok"}
    assert {line[0] for line in lines} <= {"ok", "note"}
    assert {line[1] for line in lines} >= {"path", "kernel", "forward", "table", "switches", "addresses", "leftovers"}
    after = run("nft", "list", "ruleset"), run("ip", "route", "show", "table", "all"), switch("ipv4/ip_forward")
    assert after == before


def test_a_host_without_jails(doctor: Doctor) -> None:
    assert doctor.run().returncode == 0


def test_what_confines_a_jail_is_tried(doctor: Doctor) -> None:
    assert all(not found["wrong"] for found in doctor.findings("confinement", 0))
    for call, error, wrong, words in (
        ("mount_setattr", "ENOSYS", True, "mounts and processes by descriptor"),
        ("landlock_create_ruleset", "EOPNOTSUPP", False, "refused is ip4=inherit"),
    ):
        fault = ["strace", "-f", "-o", "/dev/null", "-e", f"inject={call}:error={error}"]
        done = subprocess.run([*fault, *doctor.argv, "confinement"], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (int(wrong), "")
        assert words in done.stdout


def test_in_a_chroot(doctor: Doctor, tmp_path: Path) -> None:
    """The kernel makes no user namespaces there, and yet there are jails."""
    mount("/", tmp_path, None, MS_BIND | MS_REC)
    try:
        done = subprocess.run(["chroot", str(tmp_path), *doctor.argv, "confinement"], capture_output=True, text=True)
    finally:
        unmount(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "user namespaces" not in done.stdout


def test_a_policy_that_drops(cell: str, doctor: Doctor, lan: Namespace, jexec: Command, checkout: Path) -> None:
    subprocess.run(["nft", "-f", "-"], input=DROPPING, text=True, check=True)
    reach = (cell, "/bin/busybox", "nc", "-w", "1", "198.51.100.2", "80")
    listener = lan.listen("198.51.100.2", 80)
    try:
        assert jexec(*reach).returncode != 0  # the control
        found = doctor.findings("forward")
        assert [one["what"] for one in found] == [
            f'{name} packets of jails are dropped on their way to ep0 (tried with jail "cell"), by chain forward of '
            "table inet filter, whose policy is drop"
            for name in ("IPv4", "IPv6")
        ]
        doctor.mend(found[0])
        assert doctor.findings("forward", 0) == []
        with subprocess.Popen([f"{checkout}/bin/jexec", *reach], stdin=subprocess.DEVNULL) as caller:
            listener.accept()[0].close()
        assert caller.returncode == 0
    finally:
        listener.close()
        run("nft", "delete", "table", "inet", "filter")


def test_a_policy_that_drops_is_seen_where_something_is_led_to_a_jail(cell: str, doctor: Doctor, jail: Command) -> None:
    assert jail("-m", f"name={cell}", "ng.rdr=tcp any 8080 -> 80").returncode == 0
    subprocess.run(["nft", "-f", "-"], input=DROPPING, text=True, check=True)
    try:
        assert len(doctor.findings("forward")) == 2
        assert jail("-m", f"name={cell}", "ng.egress=none").returncode == 0
        assert all("jails to come" in one["what"] for one in doctor.findings("forward", 0))  # it is not to get there
    finally:
        run("nft", "delete", "table", "inet", "filter")


def test_without_sys(doctor: Doctor) -> None:
    """No jail can be made, as what it is shown of the processors is made from there."""
    doctor.argv = ["unshare", "-m", "sh", "-c", 'umount -l /sys && exec "$@"', "sh", *doctor.argv]
    assert doctor.findings("confinement")[0]["what"] == (
        "what /sys tells of the machine: No such file or directory: the kernel needs CONFIG_SYSFS, mounted at /sys"
    )


@pytest.mark.parametrize("program", ["jail", "jls", "jexec", "jailctl", "rctl", "ipnat"])
def test_without_proc(checkout: Path, program: str) -> None:
    """A sentence, and no traceback."""
    hidden = ["unshare", "-m", "sh", "-c", 'umount -l /proc && exec "$@"', "sh", str(checkout / "bin" / program)]
    done = subprocess.run(hidden, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f"{program}: /proc/self/fd: No such file or directory\n")


def test_root_of_a_container_is_told_what_he_lacks_and_not_what_the_kernel_lacks(doctor: Doctor) -> None:
    doctor.argv = ["setpriv", "--bounding-set=-sys_admin,-sys_ptrace", *doctor.argv]
    (found,) = doctor.findings("confinement")
    assert found["what"] == "root has no CAP_SYS_PTRACE, CAP_SYS_ADMIN here, as in a container: no jail can be made"


def test_a_jail_whose_name_a_shell_would_carry_out(
    lan: Namespace, doctor: Doctor, jail: Command, small_root: Path
) -> None:
    name = "x;touch $HOME"
    made = jail("-c", f"name={name}", f"path={small_root}", f"ip4.addr={FOUR}", "persist")
    assert (made.returncode, made.stderr) == (0, "")
    ip(f"route delete {FOUR} dev {_interface()} table local")
    (found,) = doctor.findings("addresses")
    assert found["remedy"][0].startswith(f"jail -rc '{name}' ")
    assert jail("-r", name).returncode == 0


def test_a_policy_that_will_drop(doctor: Doctor) -> None:
    subprocess.run(["nft", "-f", "-"], input=DROPPING, text=True, check=True)
    found = doctor.findings("forward", 0)
    doctor.mend(found[0])
    spared = doctor.findings("forward", 0)
    run("nft", "delete", "table", "inet", "filter")
    assert [one["wrong"] for one in found] == [False, False]
    assert "will be dropped by chain forward of table inet filter" in found[0]["what"]
    assert spared == []


def test_a_flushed_ruleset(cell: str, doctor: Doctor, jail: Command, small_root: Path) -> None:
    run("nft", "flush", "ruleset")
    (found,) = doctor.findings("table")
    assert found["what"].startswith("table inet jailng is gone, as after nft flush ruleset: cell may send from any")
    ip("address add 198.51.100.11/24 dev ep0")
    assert jail("-c", f"path={small_root}", "ip4.addr=198.51.100.11", "command=/bin/true").returncode == 0
    assert doctor.findings("table", 0) == []


def test_forwarding_that_somebody_switched_off(cell: str, doctor: Doctor) -> None:
    set_switch("ipv4/ip_forward", "1")
    set_switch("ipv4/ip_forward", "0")  # which does it for all interfaces, those of jails too
    found = doctor.findings("switches")
    assert [one["remedy"] for one in found] == [
        [f"sysctl -w net.ipv4.conf.{name}.forwarding=1"] for name in (_interface(), "ep0")
    ]
    for one in found:
        doctor.mend(one)
    assert doctor.findings("switches", 0) == []
    set_switch("ipv4/conf/ep0/forwarding", "3")  # as it was


def test_another_way_to_the_world(cell: str, doctor: Doctor) -> None:
    """What has been translated comes back by that, and when the jail started it was by another."""
    with attach("ep5", ("203.0.113.1/24", "2001:db8:5::1/64"), ("203.0.113.2/24", "2001:db8:5::2/64")):
        assert doctor.findings("switches", 0) == []
        ip("route replace default via 203.0.113.2", "route replace default via 2001:db8:5::2")
        four, six = doctor.findings("switches", 0)
        told = 'the host speaks to the world by ep5, and does not forward there: what comes back to jail "cell" and '
        assert (four["what"][: len(told)], six["what"]) == (told, four["what"])
        assert four["remedy"] == ["jail -rc cell   # or start it again as it was"]
        ip("route replace default via 198.51.100.2", "route replace default via 2001:db8:1::2")
        assert doctor.findings("switches", 0) == []


def test_forwarding_that_somebody_switched_on(cell: str, doctor: Doctor) -> None:
    set_switch("ipv4/ip_forward", "1")
    (found,) = doctor.findings("table", 0)
    assert found["what"].startswith(
        "net.ipv4.conf.ep0.forwarding is the administrator's by now, and jailng still drops"
    )
    set_switch("ipv4/ip_forward", "0")
    set_switch("ipv4/conf/ep0/forwarding", "3")
    set_switch(f"ipv4/conf/{_interface()}/forwarding", "1")


def test_an_alias_that_somebody_took_away(cell: str, doctor: Doctor) -> None:
    ip(f"address delete {FOUR}/24 dev ep0")
    (found,) = doctor.findings("addresses", 0)
    assert found["what"].startswith(f'jail "cell": ep0 has {FOUR} no longer')
    doctor.mend(found)
    ip(f"address delete {FOUR}/32 dev ep0", f"address add {FOUR}/24 dev ep0")


def test_an_alias_that_is_made_again_goes_with_the_jail(
    lan: Namespace, doctor: Doctor, jail: Command, small_root: Path
) -> None:
    lent = ["198.51.100.77/24", "2001:db8:1::77/64"]
    given = (f"ip4.addr=ep0|{lent[0]}", f"ip6.addr=ep0|{lent[1]}", f"path={small_root}", "persist")
    assert jail("-c", "name=cell", *given).returncode == 0
    before = run("ip", "-brief", "address", "show", "dev", "ep0")
    ip(*[f"address delete {address} dev ep0" for address in lent])
    for found in doctor.findings("addresses", 0):
        doctor.mend(found)
    assert doctor.findings("addresses", 0) == []
    assert sorted(run("ip", "-brief", "address", "show", "dev", "ep0").split()) == sorted(before.split())
    assert "deprecated" in run("ip", "-6", "address", "show", "dev", "ep0", "to", lent[1])
    assert jail("-r", "cell").returncode == 0
    left = run("ip", "-brief", "address", "show", "dev", "ep0")
    assert [address for address in lent if address.partition("/")[0] in left] == []


def test_a_proxy_and_a_route_that_somebody_took_away(cell: str, doctor: Doctor, jail: Command) -> None:
    with Netlink() as netlink:  # ip(8) takes none away that is of no interface
        netlink.batch([rtnetlink.delete_proxy(0, socket.inet_aton(FOUR))])
    (found,) = doctor.findings("addresses")
    assert found["what"] == f'jail "cell": nobody answers for {FOUR} on ep0'
    doctor.mend(found)
    assert doctor.findings("addresses", 0) == []
    ip(f"route delete {FOUR} dev {_interface()} table local")
    (found,) = doctor.findings("addresses")
    assert found["what"] == f'jail "cell": {FOUR} leads to lo, and not to {_interface()}'


def test_a_network_that_went_with_the_interface(jail: Command, small_root: Path, doctor: Doctor) -> None:
    """Its route has the first address as its source, and the kernel makes none while that is in a jail."""
    with attach("ep5", ("203.0.113.10/24",), ("203.0.113.2/24", "2001:db8:5::2/64")):
        assert jail("-c", "name=first", f"path={small_root}", "ip4.addr=203.0.113.10", "persist").returncode == 0
        assert doctor.findings("addresses", 0) == []
        ip("link set ep5 down", "link set ep5 up")
        (found,) = doctor.findings("addresses", 0)
        assert found["what"].startswith("the host has no route to 203.0.113.0/24, the network of an address of jail")
        doctor.mend(found)
        assert doctor.findings("addresses", 0) == []
        assert jail("-r", "first").returncode == 0


def test_an_address_that_the_host_gets_behind_a_jail_s(jail: Command, small_root: Path, doctor: Doctor) -> None:
    """As by DHCP: the old one goes, with which the alias of a jail in its network becomes the first of that."""
    with attach("ep5", ("203.0.113.1/24",), ("203.0.113.2/24", "2001:db8:5::2/64")) as other:
        set_switch("ipv4/conf/ep5/promote_secondaries", "1")  # as systemd has it
        words = ("interface=ep5", "ip4.addr=203.0.113.10/24", "persist")
        assert jail("-c", "name=first", f"path={small_root}", *words).returncode == 0
        assert doctor.findings("addresses", 0) == []
        ip("address del 203.0.113.1/24 dev ep5", "address add 203.0.113.3/24 dev ep5")
        assert not reaches(other, "203.0.113.3", 80)
        for found in doctor.findings("addresses"):
            doctor.mend(found)
        assert doctor.findings("addresses", 0) == []
        other.run("ip", "neighbour", "flush", "all")  # it is still asking, once a second, who has that
        assert reaches(other, "203.0.113.3", 80)
        assert reaches(None, "203.0.113.2", 80)
        assert reaches(other, "203.0.113.10", 80)
        assert jail("-r", "first").returncode == 0


def test_a_network_that_the_host_has_come_to_be_in(
    lan: Namespace, jail: Command, small_root: Path, doctor: Doctor
) -> None:
    """To rules that were made before, lan is what there was then, and all else the world."""
    words = (f"ip4.addr={FOUR}", "ng.egress=pass tcp to world port 80,drop to any", "persist")
    assert jail("-c", "name=cell", f"path={small_root}", *words).returncode == 0
    assert doctor.findings("rules", 0) == []
    with attach("ep5", ("203.0.113.1/24", "2001:db8:5::1/64"), ("203.0.113.2/24", "2001:db8:5::2/64")) as other:
        set_switch("ipv4/conf/ep5/forwarding", "1")  # for what comes back
        listener = other.listen("203.0.113.2")
        other.run("ip", "route", "add", "198.51.100.0/24", "via", "203.0.113.1")
        four, six = doctor.findings("rules")
        assert four["what"].startswith("the host is in 203.0.113.0/24 since rules with lan or world were last made")
        assert six["what"].startswith("the host is in 2001:db8:5::/64 since ")
        with inside("cell") as there:
            assert reaches(there, "203.0.113.2", 80)
            before = run("nft", "list", "chain", "inet", "jailng_egress", _chain())
            doctor.mend(four)
            assert doctor.findings("rules", 0) == []
            assert run("nft", "list", "chain", "inet", "jailng_egress", _chain()) == before  # with what is counted
            assert not reaches(there, "203.0.113.2", 80)
        listener.close()
    assert jail("-r", "cell").returncode == 0


def test_an_address_of_the_hosts_stack_that_is_taken_away(
    jail: Command, small_root: Path, doctor: Doctor, lan: Namespace
) -> None:
    given = (f"path={small_root}", "ng.stack=shared", "ip4.addr=ep0|198.51.100.77/24", "persist")
    assert jail("-c", "name=kept", *given).returncode == 0
    assert doctor.findings("addresses", 0) == []
    ip("address delete 198.51.100.77/24 dev ep0")
    (found,) = doctor.findings("addresses")
    assert found["what"] == 'jail "kept": 198.51.100.77 is on no interface: nothing in it can use that'
    doctor.mend(found)
    assert doctor.findings("addresses", 0) == []
    assert jail("-r", "kept").returncode == 0


def test_an_address_on_no_interface(
    jail: Command, jexec: Command, small_root: Path, doctor: Doctor, tmp_path: Path
) -> None:
    conf = tmp_path / "jail.conf"
    conf.write_text(f'path = "{small_root}"; persist; lost {{ ip4.addr = 192.0.2.77; }}')
    assert jail("-f", str(conf), "-qc", "lost").returncode == 0
    (found,) = doctor.findings("addresses")
    assert found["what"] == 'jail "lost": 192.0.2.77 was on no interface when it started: nothing in it can use that'
    add, again = found["remedy"]
    doctor.mend({"remedy": [add]})
    assert again.startswith("jail -rc lost ")
    assert jail("-f", str(conf), "-qrc", "lost").returncode == 0
    assert doctor.findings("addresses", 0) == []
    assert "inet 192.0.2.77/32" in jexec("lost", "/bin/busybox", "ip", "address").stdout
    jail("-r", "lost")
    ip("address delete 192.0.2.77/32 dev lo")


def test_what_is_left_over(doctor: Doctor, lan: Namespace) -> None:
    firewall.hold(["4:ep0"])  # as a jail does whose record is lost with /run
    found = doctor.findings("leftovers")
    assert len(found) == 2
    for one in found:
        doctor.mend(one)
    assert doctor.findings("leftovers", 0) == []
    set_switch("ipv4/neigh/ep0/proxy_delay", "80")


def test_reverse_path_filtering_that_is_off(cell: str, doctor: Doctor) -> None:
    set_switch(f"ipv4/conf/{_interface()}/rp_filter", "0")
    (found,) = doctor.findings("rp_filter", 0)
    doctor.mend(found)
    assert doctor.findings("rp_filter", 0) == []


def test_path_that_leads_to_others_first(tmp_path: Path, doctor: Doctor) -> None:
    other = tmp_path / "jexec"
    other.write_text("#!/bin/sh\necho java\n")
    other.chmod(0o755)
    done = doctor.run("path", PATH=f"{tmp_path}:{doctor.environment['PATH']}")
    assert done.returncode == 1
    assert f"jexec: PATH leads to {other}, which is another program, before {doctor.argv[0][:-7]}jexec" in done.stdout
    assert doctor.run("path", PATH="/nonexistent:/usr/bin").returncode == 1


def test_packages_that_are_not_there(doctor: Doctor) -> None:
    """As where it was installed without its package: all that can be told is, and what cannot does not end it."""
    mount("none", "/usr/lib/python3/dist-packages", "tmpfs")
    try:
        found = doctor.findings("packages")
        done = doctor.run()
    finally:
        unmount("/usr/lib/python3/dist-packages")
    assert [one["remedy"] for one in found] == [[f"apt-get install python3-{name}"] for name in ("seccomp", "nftables")]
    lines = [line.split() for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert [line[1] for line in lines] == list(CHECKS)
    assert {line[1] for line in lines if line[0] == "wrong"} >= {"packages", "forward"}
    assert (done.returncode, done.stderr) == (1, "")
    assert doctor.findings("packages", 0) == []


def test_a_kernel_that_lacks_something(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise OSError(2, "No such file or directory")

    assert list(netkernel.check(diagnosis.Jails())) == []
    monkeypatch.setattr(netkernel, "_TRIED", [("nf_tables: fib", "CONFIG_NFT_FIB_INET", missing)])
    (found,) = netkernel.check(diagnosis.Jails())
    assert found.what == "nf_tables: fib: No such file or directory: the kernel needs CONFIG_NFT_FIB_INET"


def test_a_configuration_that_cannot_be_read(etc: Path, doctor: Doctor) -> None:
    """Then nobody knows whether its roots are reached."""
    (etc / "jail.conf").write_text("a { path = ")
    (found,) = doctor.findings("roots")
    assert found["what"] == "the roots of /etc/jail.conf are not known: /etc/jail.conf: unexpected EOF"
    (etc / "jail.conf").write_text("")
    assert doctor.findings("roots", 0) == []


def test_what_it_does_not_understand(doctor: Doctor) -> None:
    for words in (["--fast"], ["nothing"], ["\x1b[2J"]):
        done = doctor.run(*words)
        assert (done.returncode, done.stdout) == (1, "")
        assert "usage: jailctl doctor" in done.stderr
        assert "\x1b" not in done.stderr


def _chain() -> str:
    record = registry.find("cell")
    assert record is not None
    return f"jail{record.jid}"


def _interface() -> str:
    (found,) = [name for name in os.listdir("/proc/sys/net/ipv4/conf") if name.startswith("jng")]
    return found
