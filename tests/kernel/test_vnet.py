"""vnet and vnet.interface: interfaces of the host's go to a jail and come back as they were, whatever becomes of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jailng import Jail, JailError
from jailng.api import connection
from jailng.core import registry
from jailng.core.registry import Record
from tests import imports
from tests.kernel.conftest import ENVIRONMENT, Command, Shim
from tests.kernel.networks import ip, run
from tests.kernel.stage import Stage

# What an interface says of itself that depends on where it is, or on when it is asked.
_PASSING = ("link_index", "link_netnsid", "link", "flags", "operstate", "qdisc", "addr_info", "ifindex")


def interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


def look(name: str) -> dict[str, Any]:
    """What an interface is, as ip(8) has it, but for what passes."""
    (found,) = json.loads(run("ip", "-details", "-json", "link", "show", "dev", name))
    return {key: value for key, value in found.items() if key not in _PASSING}


def flags(name: str) -> set[str]:
    return set(json.loads(run("ip", "-json", "link", "show", "dev", name))[0]["flags"])


@pytest.fixture
def wire() -> Iterator[str]:
    """A new epair0a and epair0b, of which the latter is to be lent; it has a name, an alias and more of its own."""
    ip(
        "link add epair0a type veth peer name epair0b",
        "address add 192.0.2.1/24 dev epair0a",
        "link set epair0a up",
        "link set epair0b address 02:00:00:00:00:0b mtu 1400 txqueuelen 77 group 5 alias wire",
        "link property add dev epair0b altname wire0",
    )
    yield "epair0b"
    if "epair0a" in interfaces():
        ip("link delete epair0a")


@pytest.fixture
def make(jail: Command, small_root: Path) -> Iterator[Command]:
    """``make("name=v", ...)``: a jail with vnet that is there until the end."""

    def made(*words: str, stdin: str = "", timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return jail("-c", "name=v", f"path={small_root}", "vnet", *words, stdin=stdin, timeout=timeout)

    yield made
    jail("-r", "v")


_SPOIL = """
ip link set epair0b down
ip link set epair0b address 02:66:66:66:66:66
ip link set epair0b mtu 666
ip link set epair0b promisc on
ip link set epair0b arp off
ip link set epair0b name lo0
ip link set lo0 up
"""


def test_goes_and_comes_back(wire: str, make: Command, jexec: Command, jail: Command) -> None:
    before = look(wire)
    made = make(f"vnet.interface={wire}", "persist")
    assert (made.stdout, made.stderr, made.returncode) == ("", "", 0)
    assert wire not in interfaces()
    script = "ip address add 192.0.2.2/24 dev epair0b && ip link set epair0b up && ping -c 1 -W 10 192.0.2.1"
    done = jexec("v", "/bin/sh", "-c", script)
    assert "1 packets received" in done.stdout, done.stderr
    assert "1 received" in run("ping", "-c", "1", "-W", "10", "192.0.2.2")
    assert jail("-r", "v").returncode == 0
    assert look(wire) == before
    assert "UP" not in flags(wire)
    assert "192.0.2.2" not in run("ip", "address")


def test_comes_back_as_it_was_whatever_root_has_made_of_it(
    wire: str, make: Command, jexec: Command, jail: Command
) -> None:
    before = look(wire)
    assert make(f"vnet.interface={wire}", "persist").returncode == 0
    done = jexec("v", "/bin/sh", "-exc", _SPOIL)
    assert done.returncode == 0, done.stderr
    assert jail("-r", "v").returncode == 0
    assert look(wire) == before
    assert not flags(wire) & {"UP", "PROMISC", "NOARP"}


def test_several_and_their_wire(wire: str, make: Command, jexec: Command, jail: Command) -> None:
    made = make("vnet.interface=epair0a,epair0b", "persist")
    assert (made.stderr, made.returncode) == ("", 0)
    assert interfaces() == {"lo"}
    assert "epair0a" in jexec("v", "/bin/ip", "link").stdout
    assert jail("-r", "v").returncode == 0
    assert interfaces() == {"lo", "epair0a", "epair0b"}


def test_of_a_jail_of_one_command(wire: str, make: Command) -> None:
    done = make(f"vnet.interface={wire}", "command=/bin/ip", "link", "show", "dev", wire)
    assert "epair0b" in done.stdout, done.stderr
    assert wire in interfaces()


def test_order_of_the_steps(wire: str, make: Command) -> None:
    """jail(8): after exec.created, before exec.start; and back by the time of exec.poststop."""
    done = make(
        f"vnet.interface={wire}",
        f"exec.created=ip -o link show dev {wire} | cut -d: -f2 | sed s/^/created/",
        "exec.start=/bin/sh -c 'ip -o link | grep -c epair0b'",
        f"exec.poststop=ip -o link show dev {wire} | cut -d: -f2 | sed s/^/poststop/",
        "command=/bin/true",
    )
    assert done.stdout.split("\n")[:2] == ["created epair0b@epair0a", "1"], done.stderr


def test_verbose_and_plan(wire: str, make: Command, jail: Command, small_root: Path) -> None:
    words = ("name=v", f"path={small_root}", "vnet", f"vnet.interface={wire}", "persist")
    planned = jail("--plan", "-c", *words)
    assert "move epair0b into the jail" in planned.stdout.splitlines(), planned.stderr
    assert wire in interfaces()
    done = make(f"vnet.interface={wire}", "persist", "jid=7")
    assert done.returncode == 0
    assert jail("-r", "v").returncode == 0
    done = jail("-vc", "jid=7", *words)
    assert done.stdout.splitlines()[-1] == "run command: /sbin/ifconfig epair0b vnet 7"


def test_a_start_that_fails_gives_back(wire: str, make: Command, jail: Command, small_root: Path) -> None:
    words = ("jid=7", "name=v", f"path={small_root}", "vnet", f"vnet.interface={wire}", "persist", "exec.start=false")
    done = jail("-vc", *words)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-2:] == ["run command: /sbin/ifconfig epair0b -vnet 7", "removed"]
    assert wire in interfaces()
    done = make(f"vnet.interface={wire},ep9", "persist")
    assert (done.stderr, done.returncode) == ("jail: interface ep9 does not exist\n", 1)
    assert wire in interfaces()


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("ep9", "interface ep9 does not exist"),
        ("e" * 20, f"interface {'e' * 20} does not exist"),
        ("a/b", "interface a/b does not exist"),
        ("lo", "interface lo: SIOCSIFVNET: Invalid argument"),
        ("bridge0", "interface bridge0: SIOCSIFVNET: Invalid argument"),
    ],
)
def test_what_cannot_be_lent(make: Command, name: str, complaint: str) -> None:
    ip("link add bridge0 type bridge")
    try:
        done = make(f"vnet.interface={name}", "persist")
        assert (done.stdout, done.stderr, done.returncode) == ("", f"jail: {complaint}\n", 1)
        assert interfaces() == {"lo", "bridge0"}
    finally:
        ip("link delete bridge0")


def test_only_with_vnet(wire: str, jail: Command, small_root: Path) -> None:
    done = jail("-c", f"path={small_root}", f"vnet.interface={wire}", "persist")
    assert done.stderr == "jail: vnet.interface: only a jail with vnet has interfaces of its own\n"
    assert done.returncode == 1


# Jails that end in other ways


def _init(jls_output: str) -> int:
    record = Path(f"/run/jailng/jails/{jls_output.strip()}").read_text()
    return int(next(line for line in record.splitlines() if line.startswith("init ")).split()[1])


def test_the_jail_has_ended_by_itself(stage: Stage, wire: str, make: Command, jail: Command, small_root: Path) -> None:
    """Where its keeper has been killed the namespace is held until a command looks."""
    before = look(wire)
    spoil = "exec.start=" + _one_line(_SPOIL)
    made = make("jid=7", f"vnet.interface={wire}", "exec.start=/bin/sh -c 'sleep 1000 >/dev/null 2>&1 &'", spoil)
    assert (made.stderr, made.returncode) == ("", 0)
    os.kill(int(load(7).keeper.partition(" ")[0]), signal.SIGKILL)
    with _waiting_for("init", stage):
        _kill_members(stage)
    assert wire not in interfaces()
    assert jail("-r", "v").returncode == 1  # not found
    assert look(wire) == before
    assert not Path("/run/jailng/net/7").exists()


def _one_line(script: str) -> str:
    return "/bin/sh -c '" + script.strip().replace("\n", ";") + "'"


def _kill_members(stage: Stage) -> None:
    """Of jail 7: whatever it calls itself by now."""
    for pid in (stage.cgroup2 / "jailng/7/members/cgroup.procs").read_text().split():
        os.kill(int(pid), signal.SIGKILL)


class _waiting_for:
    """Wait, at the end, for a process on the stage to be gone."""

    def __init__(self, name: str, stage: Stage) -> None:
        (pid,) = [pid for pid, known in stage.processes().items() if known == name]
        self.pidfd = os.pidfd_open(pid)
        self.pid = pid

    def __enter__(self) -> int:
        return self.pid

    def __exit__(self, *_: object) -> None:
        import select

        assert select.select([self.pidfd], [], [], 60)[0]
        os.close(self.pidfd)


def test_its_pid_1_was_killed(stage: Stage, wire: str, make: Command, jail: Command, small_root: Path) -> None:
    before = look(wire)
    assert make(f"vnet.interface={wire}", "persist", "exec.start=" + _one_line(_SPOIL)).returncode == 0
    with _waiting_for("init", stage) as pid:
        os.kill(pid, signal.SIGKILL)
    again = make(f"vnet.interface={wire}", "persist")  # which clears away what is left of it first
    assert (again.stderr, again.returncode) == ("", 0)
    assert jail("-r", "v").returncode == 0
    assert look(wire) == before


def test_the_starter_was_killed(wire: str, make: Command, jail: Command, checkout: Path, small_root: Path) -> None:
    before = look(wire)
    words = ("name=v", f"path={small_root}", "vnet", f"vnet.interface={wire}", "persist")
    argv = [str(checkout / "bin/jail"), "-c", *words, "exec.start=/bin/sh -c 'echo up; sleep 1000'"]
    starter = subprocess.Popen(argv, stdout=subprocess.PIPE, env=ENVIRONMENT)
    assert starter.stdout is not None
    assert starter.stdout.readline() == b"up\n"
    assert wire not in interfaces()
    starter.kill()
    starter.wait()
    starter.stdout.close()
    jail("-r", "v")
    assert look(wire) == before


def test_poststop_of_a_jail_that_has_ended_by_itself_finds_it(
    stage: Stage, wire: str, jail: Command, small_root: Path, tmp_path: Path
) -> None:
    config = tmp_path / "jail.conf"
    config.write_text(
        f'v {{ jid = 7; path = "{small_root}"; vnet; vnet.interface = {wire};'
        f' exec.poststop = "ip -br link show dev {wire}";'
        ' exec.start = "sleep 1000 >/dev/null 2>&1 </dev/null &"; }'
    )
    made = jail("-f", str(config), "-c", "v")
    assert (made.stderr, made.returncode) == ("", 0)
    with _waiting_for("init", stage):
        _kill_members(stage)
    done = jail("-f", str(config), "-C", "v")
    assert (done.stderr, done.stdout.split()[0]) == ("", "epair0b@epair0a")


def test_its_name_is_anothers_by_now(wire: str, make: Command, jail: Command) -> None:
    assert make(f"vnet.interface={wire}", "persist").returncode == 0
    ip("link add other type veth peer name epair0b")
    try:
        assert jail("-r", "v").returncode == 0
        assert interfaces() == {"lo", "epair0a", "epair0b", "other", "dev0"}
        assert look("dev0")["ifalias"] == "wire"
    finally:
        ip("link delete other")


def test_what_root_has_made_in_its_place_stays(wire: str, make: Command, jail: Command, jexec: Command) -> None:
    """Its number can be had by another once root has destroyed it, but not its kind at the same time as its wire."""
    ip("link add kind0 type ifb", "link delete kind0")  # a module is the host's to load
    assert make(f"vnet.interface={wire}", "persist").returncode == 0
    index = jexec("v", "/bin/sh", "-c", "ip -o link show dev epair0b | cut -d: -f1").stdout.strip()
    done = jexec("v", "/bin/sh", "-c", f"ip link delete epair0b; ip link add epair0b index {index} type ifb")
    assert done.returncode == 0, done.stderr
    assert interfaces() == {"lo"}
    assert jail("-r", "v").returncode == 0
    assert interfaces() == {"lo"}


def test_what_was_not_lent_is_not_fetched(make: Command, jail: Command, jexec: Command, shim: Shim) -> None:
    """Not by a number that root inside has seen somebody try with, whatever it is that has it then."""
    ip("link add bridge0 type bridge")
    try:
        assert make("persist", "jid=7").returncode == 0
        index = socket.if_nametoindex("bridge0")
        assert shim("ifconfig", "bridge0", "vnet", "v").stderr == "ifconfig: SIOCSIFVNET: Invalid argument\n"
        assert not any(line.startswith("vnet ") for line in load(7).undo)
        script = f"ip link add name mine0 index {index} type bridge && ip -o link show dev mine0 | wc -l"
        assert jexec("v", "/bin/sh", "-c", script).stdout == "1\n"
        # As if whoever tried had been killed before it could say that it came to nothing.
        record = Path("/run/jailng/jails/7")
        words = f"undo vnet 7 0 {index} bridge0 bridge {index} 4096 1500 1000 0 - -"
        record.write_text(f"{record.read_text()}{words}\n")
        done = jail("-r", "v")
        assert (done.stderr, done.returncode) == ("", 0)
        assert interfaces() == {"lo", "bridge0"}
    finally:
        ip("link delete bridge0")


def load(jid: int) -> Record:
    found = registry.load(jid)
    assert found is not None
    return found


def test_a_jail_with_vnet_and_no_interface_holds_nothing(make: Command, jexec: Command) -> None:
    assert make("persist").returncode == 0
    assert not Path("/run/jailng/net/1").exists()
    assert jexec("v", "/bin/ip", "-o", "link").stdout.count("\n") == 1
    assert "1 packets received" in jexec("v", "/bin/ping", "-c", "1", "127.0.0.1").stdout
    assert "1 packets received" in jexec("v", "/bin/ping", "-c", "1", "::1").stdout


def test_shared_uids(wire: str, make: Command, jexec: Command, jail: Command) -> None:
    before = look(wire)
    assert make(f"vnet.interface={wire}", "persist", "ng.uids=shared").returncode == 0
    done = jexec("v", "/bin/sh", "-exc", _SPOIL)
    assert done.returncode == 0, done.stderr
    assert jail("-r", "v").returncode == 0
    assert look(wire) == before


def test_what_ifconfig_has_lent_comes_back_too(wire: str, make: Command, jail: Command, shim: Shim) -> None:
    before = look(wire)
    assert make("persist").returncode == 0
    done = shim("ifconfig", wire, "vnet", "v")
    assert (done.stdout, done.stderr) == ("", "")
    assert wire not in interfaces()
    assert shim("ifconfig", "lo", "vnet", "v").stderr == "ifconfig: SIOCSIFVNET: Invalid argument\n"
    assert jail("-r", "v").returncode == 0
    assert look(wire) == before


def test_what_ifconfig_has_taken_back_is_nobodys_afterwards(
    wire: str, make: Command, jail: Command, shim: Shim
) -> None:
    assert make(f"vnet.interface={wire}", "persist").returncode == 0
    assert shim("ifconfig", wire, "-vnet", "v").returncode == 0
    run("ip", "link", "set", wire, "up")
    assert jail("-r", "v").returncode == 0
    assert "UP" in flags(wire)


_RESTLESS = """
ip link property add dev epair0b altname epair0a
ip link set epair0b up
echo ready
while :; do
    for name in one0 two0 epair0a lo0; do
        ip link set $(ip -br link | grep -o '^[a-z0-9]*@' | head -1 | tr -d @) down name $name up
    done
done 2>/dev/null
"""


def test_nobody_has_its_broadcasts_afterwards(wire: str, make: Command, jail: Command) -> None:
    """The hardware's address of all, where what the host asks all for goes; and what else ip(8) of busybox has not."""
    ip(f"link set {wire} arp on mtu 1500")
    before = look(wire)
    assert make(f"vnet.interface={wire}", "persist").returncode == 0
    record = registry.find("v")
    assert record is not None
    inside = ("nsenter", f"--net=/proc/{record.init_pid}/ns/net", "ip", "link", "set", wire)
    for words in (
        "broadcast 02:66:66:66:66:66",
        "mode dormant",
        "gso_max_segs 1",
        "gso_max_size 70000",
        "gso_ipv4_max_size 3000",
        "gro_max_size 3000",
        "arp off",
    ):
        run(*inside, *words.split())
    assert jail("-r", "v").returncode == 0
    assert look(wire) == before
    assert Path(f"/proc/sys/net/ipv6/conf/{wire}/accept_dad").read_text() == "1\n"


def test_whoever_goes_on_changing_it_keeps_nobody(wire: str, jail: Command, checkout: Path) -> None:
    """A name of the host's as another name of its would keep it from getting there; and the next loop is on its way."""
    before = look(wire)
    argv = [str(checkout / "bin/jail"), "-c", "name=v", "path=/", "vnet", f"vnet.interface={wire}"]
    restless = subprocess.Popen([*argv, "command=/bin/bash", "-c", _RESTLESS], stdout=subprocess.PIPE)
    assert restless.stdout is not None
    try:
        assert restless.stdout.readline() == b"ready\n"
        assert jail("-r", "v").returncode == 0
        assert look(wire) == before
        assert interfaces() == {"lo", "epair0a", "epair0b"}
    finally:
        restless.communicate()


def test_a_tap(jail: Command, make: Command, jexec: Command) -> None:
    ip("tuntap add dev tap7 mode tap", "link set tap7 address 02:00:00:00:00:07")
    try:
        before = look("tap7")
        assert make("vnet.interface=tap7", "persist").returncode == 0
        assert jexec("v", "/bin/ip", "link", "set", "tap7", "name", "eth0").returncode == 0
        assert jail("-r", "v").returncode == 0
        assert look("tap7") == before
    finally:
        ip("link delete tap7")


@pytest.fixture
def worker_ends(nothing_left_behind: None) -> Iterator[None]:
    yield
    connection.close()


def test_a_vlan(make: Command, jexec: Command, jail: Command, wire: str) -> None:
    """Of a wire to a machine that tags: the tag is the host's affair, and the jail has the VLAN alone."""
    made = subprocess.run(["ip", "link", "add", "link", wire, "name", "vlan10", "type", "vlan", "id", "10"])
    if made.returncode:
        pytest.skip("this kernel has no VLANs")
    ip(
        f"link set {wire} up",
        "link add link epair0a name far10 type vlan id 10",
        "address add 203.0.113.1/24 dev far10",
        "link set far10 up",
    )
    before = look("vlan10")
    start = "exec.start=/bin/sh -c 'ip address add 203.0.113.2/24 dev vlan10 && ip link set vlan10 up'"
    assert make("vnet.interface=vlan10", start, "persist").returncode == 0
    assert "1 received" in run("ping", "-c", "1", "-W", "10", "203.0.113.2")
    assert "epair0b" not in jexec("v", "/bin/ip", "-br", "link").stdout.replace("@epair0b", "")
    assert jail("-r", "v").returncode == 0
    assert look("vlan10") == before


def test_a_python_program(worker_ends: None, wire: str, small_root: Path) -> None:
    before = look(wire)
    with Jail(path=str(small_root), vnet="new", vnet_interface=[wire]) as made:
        done = made.run(["/bin/ip", "-o", "link", "show", "dev", wire], capture_output=True, text=True)
        assert wire in done.stdout
        assert wire not in interfaces()
    assert look(wire) == before
    with pytest.raises(JailError, match="only a jail with vnet"):
        Jail(path=str(small_root), vnet_interface=[wire])
    missing = Jail(path=str(small_root), vnet="new", vnet_interface=["ep9"])
    with pytest.raises(JailError, match="interface ep9 does not exist"), missing:
        pass


def test_what_it_loads(wire: str, checkout: Path, small_root: Path) -> None:
    """A jail without vnet nothing of this; one with it nothing that costs milliseconds."""
    plain = ("-c", f"path={small_root}", "command=/bin/true")
    done, loaded = imports.run(checkout / "bin/jail", *plain)
    assert done.returncode == 0, done.stderr
    assert not {"jailng.core.vnet", "jailng.core.modules", "jailng.linux.interface"} & loaded
    words = ("-c", f"path={small_root}", "vnet", f"vnet.interface={wire}", "command=/bin/true")
    imports.run(checkout / "bin/jail", *words)  # compiles the filter, if this machine has not had it yet
    done, loaded = imports.run(checkout / "bin/jail", *words)
    assert done.returncode == 0, done.stderr
    assert "jailng.core.vnet" in loaded
    assert not loaded & imports.FORBIDDEN
