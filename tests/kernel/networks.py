"""A network for tests: the stage is the host, with a LAN behind its ep0, and jails are namespaces made by hand."""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from jailng.core import firewall, network, registry
from jailng.core.link import Link
from jailng.params.address import addresses
from tests.kernel.stage import CLONE_NEWNET, CLONE_NEWUSER, setns, unshare

_RTMGRP_LINK = 1
_RTM_DELLINK = 17
# Seconds within which an answer comes if one does: nothing else tells silence. tests/vm/guest has more.
_ANSWER = float(os.environ.get("JAILNG_TEST_ANSWER", "0.4"))
PATIENCE = 30.0  # seconds for what has to come; that nothing does ``reaches`` finds out sooner


def run(*argv: str) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
    return done.stdout


def ip(*lines: str) -> None:
    """ip(8), a line a command; what routes to the IPv6 addresses that it adds is there afterwards."""
    done = subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    added = {line.split()[2].partition("/")[0] for line in lines if line.startswith("address add") and ":" in line}
    while added & _without_route():
        pass


def _without_route() -> set[str]:
    """The IPv6 addresses, of interfaces with a carrier, to which a worker of the kernel's has made no route yet."""
    interfaces = json.loads(run("ip", "-j", "-6", "address", "show", "up"))
    able = [found for found in interfaces if {"UP", "LOWER_UP"} <= set(found.get("flags", ()))]
    there = {a["local"] for found in able for a in found["addr_info"] if "tentative" not in a and "dadfailed" not in a}
    return there - {route["dst"] for route in json.loads(run("ip", "-j", "-6", "route", "show", "table", "local"))}


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Socket(socket.socket):
    """One that closes with the test that made it: what is open in a namespace keeps it."""

    def __del__(self) -> None:
        self.close()


def client(address: str, port: int = 80) -> Socket:
    """A connection from where this process is."""
    made = Socket(family(address), socket.SOCK_STREAM)
    made.settimeout(PATIENCE)
    made.connect((address, port))
    return made


def server(address: str, port: int = 80) -> Socket:
    """A listener where this process is."""
    made = Socket(family(address), socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    made.listen()
    made.settimeout(PATIENCE)
    return made


def datagrams(address: str = "", port: int = 0, version: int = 4) -> Socket:
    """A UDP socket, bound if an address is given."""
    made = Socket(family(address) if address else _FAMILIES[version], socket.SOCK_DGRAM)
    made.settimeout(PATIENCE)
    if address:
        made.bind((address, port))
    return made


class Namespace:
    """A network namespace, as long as ``close`` has not been called or its process lives."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def new(cls) -> Namespace:
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        unshare(CLONE_NEWNET)
        made = cls(os.open("/proc/self/ns/net", os.O_RDONLY))
        setns(home, CLONE_NEWNET)
        os.close(home)
        return made

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This process is in it; sockets made meanwhile stay in it."""
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        setns(self.fd, CLONE_NEWNET)
        try:
            yield
        finally:
            setns(home, CLONE_NEWNET)
            os.close(home)

    def run(self, *argv: str) -> str:
        with self.entered():
            return run(*argv)

    def listen(self, address: str, port: int = 80) -> Socket:
        with self.entered():
            return server(address, port)

    def connect(self, address: str, port: int = 80) -> Socket:
        with self.entered():
            return client(address, port)

    def said(self, address: str, port: int = 80) -> str:
        """All that a server says: one whose end nobody has confirmed would keep a jail's namespace."""
        with self.connect(address, port) as connection, connection.makefile() as file:
            return file.read().strip()

    def datagrams(self, address: str = "", port: int = 0, version: int = 4) -> Socket:
        with self.entered():
            return datagrams(address, port, version)

    def close(self) -> None:
        os.close(self.fd)


_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


@contextmanager
def attach(interface: str, here: tuple[str, ...], there: tuple[str, str]) -> Iterator[Namespace]:
    """Another machine, on a LAN behind a new interface of the host, until the end; addresses with prefix length."""
    machine = Namespace.new()
    try:
        _connect(machine, interface, here, there)
        yield machine
    finally:
        # An interface that is not ready yet has not its name.
        left = {"far", interface}.intersection(name for _, name in socket.if_nameindex())
        ip(*[f"link delete {name}" for name in left])
        machine.close()


def _connect(machine: Namespace, interface: str, here: tuple[str, ...], there: tuple[str, str]) -> None:
    # ip(8) knows namespaces by name or by a process; a process that enters one can pass itself on.
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    with machine.entered():
        ip(f"link add {interface} type veth peer name far", "link set lo up")
        ip(f"link set far netns /proc/{os.getpid()}/fd/{home}")
        ip(*[f"address add {address} dev {interface} nodad" for address in there], f"link set {interface} up")
    os.close(home)
    ip(f"link set far name {interface}", *[f"address add {address} dev {interface} nodad" for address in here])
    if not firewall.can_forward_one():
        # Before Linux 6.17 an interface that takes router advertisements keeps jails from having IPv6 addresses
        # (docs/decisions/0003-address-jail.md), and an interface is born like that. Here nobody advertises.
        set_switch(f"ipv6/conf/{interface}/accept_ra", "0")
    ip(f"link set {interface} up")
    # An IPv6 address of an interface without a carrier is led to some time after it has one.
    _until_led_to(here)
    with machine.entered():
        _until_led_to(there)


def _until_led_to(addresses: tuple[str, ...]) -> None:
    for address in addresses:
        while not run("ip", "route", "get", address.partition("/")[0]).startswith("local"):
            pass


def until_up(interface: str) -> None:
    """Wait until a worker of the kernel's has noticed its carrier: what is sent before that is dropped."""
    while json.loads(run("ip", "-j", "link", "show", "dev", interface))[0]["operstate"] != "UP":
        pass


def settle(interface: str) -> None:
    """Wait until it has the address that the kernel gives it when it gets to its carrier, and may use all it has."""
    # The kernel's route to it comes a moment after it may be used.
    while "tentative" in run("ip", "address") or not _own("address", "show", "dev", interface) & _own(
        "route", "show", "table", "local", "dev", interface
    ):
        pass


def _own(*words: str) -> set[str]:
    """The link-local addresses in what ip(8) shows."""
    shown = run("ip", "-6", *words).split()
    return {word.partition("/")[0] for word in shown if word.startswith("fe80::") and word != "fe80::"}


class Jail(Namespace):
    """A process in user and network namespaces of its own, as the core makes one; ``end`` kills it."""

    def __init__(self) -> None:
        told, tell = os.pipe()
        self.go, wait = os.pipe()[::-1]
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self.go)
                unshare(CLONE_NEWUSER | CLONE_NEWNET)
                os.write(tell, b"x")
                os.read(wait, 1)
            finally:
                os._exit(0)
        os.close(tell)
        os.close(wait)
        assert os.read(told, 1)
        os.close(told)
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{self.pid}/{name}", "w") as file:
                file.write(f"0 {0x70000000} 65536")
        super().__init__(os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY))
        self.link: Link | None = None
        self.ended = False

    def set_up(
        self, jid: int, ip4: str = "", ip6: str = "", interface: str | None = None, fixed: tuple[int, ...] = ()
    ) -> Link:
        """What jail -c does to its network. Where that fails it has ended."""
        wanted = addresses("ip4", "ip4.addr", ip4) + addresses("ip6", "ip6.addr", ip6)
        try:
            self.link = network.survey(jid, wanted, interface, fixed)
            network.host_side(self.link, self.pid)
            with self.entered():
                network.inside(self.link)
        except BaseException:
            self.end()
            raise
        return self.link

    def inside_as_root(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """A command as root of the jail, without any capability."""
        enter = ["nsenter", f"--target={self.pid}", "--user", "--net", "--setuid=0", "--setgid=0"]
        drop = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
        return subprocess.run([*enter, *drop, *argv], capture_output=True, text=True)

    def end(self) -> None:
        """Its last process leaves."""
        if not self.ended:
            self.ended = True
            os.close(self.go)
            os.waitpid(self.pid, 0)
            self.close()


def undo(link: Link) -> None:
    """The walk over the undo records, from the last to the first."""
    for line in reversed(network.undo_lines(link)):
        kind, *words = line.split(" ")
        network.UNDO[kind](words)


class Departures:
    """Tells when an interface is gone from the host. Made before that happens."""

    def __init__(self) -> None:
        self.socket = Socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self.socket.bind((0, _RTMGRP_LINK))

    def wait(self, *names: str, seconds: float = 60) -> None:
        """Until all of them are."""
        left = {b"\0" + name.encode() + b"\0": name for name in names}
        with self.socket:
            while left and select.select([self.socket], [], [], seconds)[0]:
                message = self.socket.recv(65536)
                if struct.unpack_from("H", message, 4)[0] == _RTM_DELLINK:
                    left = {wanted: name for wanted, name in left.items() if wanted not in message}
        assert not left, f"{', '.join(left.values())} is still there"


@contextmanager
def inside(name: str) -> Iterator[Namespace]:
    """The network namespace of a jail that runs, entered with the host's privileges: more than its root has."""
    record = registry.find(name)
    assert record is not None
    made = Namespace(os.open(f"/proc/{record.init_pid}/ns/net", os.O_RDONLY))
    try:
        yield made
    finally:
        made.close()


def reaches(sender: Namespace | None, address: str, port: int, kind: str = "tcp") -> bool:
    """Whether somebody answers there: a connection is made or refused, a datagram answered; not: nothing comes."""
    with sender.entered() if sender is not None else nullcontext():
        made = Socket(family(address), socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    made.settimeout(_ANSWER)
    with made:
        try:
            made.connect((address, port))
            if kind == "udp":
                made.send(b"who")
                made.recv(100)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return True


def counter(name: str) -> int:
    """Packets that the table has counted."""
    shown = json.loads(run("nft", "-j", "list", "counter", "inet", "jailng", name))["nftables"]
    (found,) = [entry["counter"]["packets"] for entry in shown if "counter" in entry]
    assert isinstance(found, int)
    return found


def host_addresses() -> Any:
    """``ip -j addr`` of the interfaces that are not a jail's, but for what the kernel says as long as it tries one."""
    shown = json.loads(run("ip", "-j", "addr"))
    for address in [address for found in shown for address in found["addr_info"]]:
        address.pop("tentative", None)
    return [found for found in shown if not found["ifname"].startswith("jng")]


def switch(path: str) -> str:
    """What is below /proc/sys/net."""
    with open(f"/proc/sys/net/{path}") as file:
        return file.read().strip()


def set_switch(path: str, value: str) -> None:
    with open(f"/proc/sys/net/{path}", "w") as file:
        file.write(value)
