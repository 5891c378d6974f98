"""Two jails of one address, each of no other: one network stack for both, for as long as either is there."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.kernel.conftest import Command
from tests.kernel.networks import Departures, Namespace, attach, client, host_addresses, ip, run, server, settle


class Start(Protocol):
    """A jail by its name, the port that it serves its name on ("" for none), and its parameters."""

    def __call__(self, name: str, port: str, *words: str) -> subprocess.CompletedProcess[str]: ...


FOUR, SIX = "198.51.100.10", "2001:db8:1::10"
_SERVE = "sh -c 'nc -ll -p {0} -e hostname </dev/null >/dev/null 2>&1 & until netstat -ltn | grep -q :{0}; do :; done'"


@pytest.fixture
def lan() -> Iterator[Namespace]:
    with attach("ep0", ("198.51.100.1/24", "2001:db8:1::1/64"), ("198.51.100.2/24", "2001:db8:1::2/64")) as made:
        ip(f"address add {FOUR}/24 broadcast + dev ep0", f"address add {SIX}/64 dev ep0 nodad")
        settle("ep0")
        yield made


@pytest.fixture
def start(jail: Command, small_root: Path) -> Iterator[Start]:
    """A jail by name and port, which serves its name there; all are removed afterwards."""
    names = []

    def make(
        name: str, port: str, *words: str, stdin: str = "", timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        given = words or (f"ip4.addr={FOUR}", f"ip6.addr={SIX}")
        names.append(name)
        serve = (f"exec.start={_SERVE.format(port)}",) if port else ()
        return jail("-c", f"name={name}", f"path={small_root}", f"host.hostname={name}", *serve, "persist", *given)

    yield make
    for name in names:
        jail("-r", name)


def _state() -> tuple[object, ...]:
    shown = (("neighbour", "show", "proxy"), ("-6", "neighbour", "show", "proxy"), ("route", "show", "table", "all"))
    ruleset = run("nft", "list", "ruleset")
    return host_addresses(), ruleset, *[run("ip", *words) for words in shown]


@pytest.mark.parametrize("leaves", ["one", "two"])
def test_both_serve_and_whichever_is_left_goes_on(lan: Namespace, start: Start, jail: Command, leaves: str) -> None:
    before = _state()
    for name, its_port in (("one", "80"), ("two", "81")):
        done = start(name, its_port)
        assert (done.returncode, done.stderr) == (0, "")
    for address in (FOUR, SIX):
        assert (lan.said(address, 80), lan.said(address, 81)) == ("one", "two")
    stays = {"one": "two", "two": "one"}[leaves]
    port = 81 if stays == "two" else 80
    assert jail("-r", leaves).returncode == 0
    for address in (FOUR, SIX):
        assert lan.said(address, port) == stays
        with pytest.raises(ConnectionRefusedError):
            lan.connect(address, 161 - port)
    assert client(FOUR, port).recv(64).decode().strip() == stays  # from the host
    again = start(leaves, str(161 - port))  # joins the one that has stayed
    assert (again.returncode, again.stderr) == (0, "")
    for address in (FOUR, SIX):
        assert (lan.said(address, 80), lan.said(address, 81)) == ("one", "two")
    departures = Departures()
    (interface,) = [name for _, name in socket.if_nameindex() if name.startswith("jng")]
    assert [jail("-r", name).returncode for name in ("one", "two")] == [0, 0]
    departures.wait(interface)
    assert _state() == before


def test_the_host_answers_when_both_have_ended(lan: Namespace, start: Start, jail: Command) -> None:
    on_host = server("0.0.0.0", 80)
    start("one", "80")
    start("two", "81")
    assert lan.said(FOUR, 80) == "one"
    jail("-r", "one")
    jail("-r", "two")
    with lan.connect(FOUR, 80):
        on_host.accept()[0].close()


def test_they_have_one_set_of_ports_and_one_loopback(lan: Namespace, start: Start, jexec: Command) -> None:
    start("one", "80")
    start("two", "81")
    taken = jexec("two", "/bin/busybox", "httpd", "-f", "-p", f"{FOUR}:80")
    assert taken.returncode == 1
    assert "Address in use" in taken.stderr or "Address already in use" in taken.stderr
    assert jexec("two", "/bin/busybox", "nc", "127.0.0.1", "80").stdout == "one\n"


def test_each_is_confined_as_ever(lan: Namespace, start: Start, jexec: Command, jail: Command) -> None:
    start("one", "80")
    start("two", "81")
    for name in ("one", "two"):
        for words in ("ip address add 198.51.100.99/24 dev ep0", "ip route delete default", "ip link set ep0 down"):
            done = jexec(name, "/bin/busybox", *words.split(" "))
            assert done.returncode != 0
            assert "not permitted" in done.stderr
    assert jexec("two", "/bin/busybox", "ps", "-o", "args").stdout.count("nc -ll -p 80") == 0
    refused = start("three", "", f"ip4.addr={FOUR}", f"ip6.addr={SIX}", "allow.raw_sockets")
    assert (refused.returncode, refused.stderr) == (
        1,
        (
            'jail: allow.raw_sockets: jail "one" has the address too, and only in the jail that was there first can '
            "Linux allow them\n"
        ),
    )


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        (["ip4.addr=198.51.100.10,198.51.100.11"], ["ip4.addr=198.51.100.10"], "IPv4 addresses clash"),
        (["ip4.addr=198.51.100.10"], ["ip4.addr=198.51.100.12,198.51.100.10"], "IPv4 addresses clash"),
        (["ip6.addr=2001:db8:1::10,2001:db8:1::11"], ["ip6.addr=2001:db8:1::11"], "IPv6 addresses clash"),
        (
            ["ip4.addr=198.51.100.10"],
            ["ip4.addr=198.51.100.10", "ip6.addr=2001:db8:1::10"],
            (
                '198.51.100.10: jail "one" has it too, and not the same addresses besides: on Linux jails that have '
                "one in common have one network stack"
            ),
        ),
    ],
)
def test_clashes(lan: Namespace, start: Start, first: list[str], second: list[str], sentence: str) -> None:
    assert start("one", "", *first).returncode == 0
    done = start("two", "", *second)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"jail: {sentence}\n")


def test_each_has_its_own_loopback_where_that_is_all_they_share(start: Start, jexec: Command) -> None:
    assert start("one", "80", "ip4.addr=127.0.0.1").returncode == 0
    assert start("two", "80", "ip4.addr=127.0.0.1").returncode == 0
    assert jexec("two", "/bin/busybox", "nc", "127.0.0.1", "80").stdout == "two\n"


def test_jails_in_a_jail(lan: Namespace, start: Start, jail: Command) -> None:
    both = (f"ip4.addr={FOUR}", f"ip6.addr={SIX}")
    assert start("outer", "", *both, "children.max=2").returncode == 0
    for name, port in (("outer.one", "80"), ("outer.two", "81")):
        done = start(name, port, *both)
        assert (done.returncode, done.stderr) == (0, "")
    assert (lan.said(FOUR, 80), lan.said(FOUR, 81)) == ("outer.one", "outer.two")
    assert jail("-r", "outer.one").returncode == 0
    assert lan.said(FOUR, 81) == "outer.two"


def test_the_jid_of_the_first_is_not_taken_from_under_the_second(
    lan: Namespace, start: Start, jail: Command, small_root: Path
) -> None:
    both = (f"ip4.addr={FOUR}", f"ip6.addr={SIX}")
    assert start("one", "", *both, "jid=70").returncode == 0
    assert start("two", "81", *both).returncode == 0
    assert jail("-r", "one").returncode == 0
    ip("address add 198.51.100.11/24 dev ep0")
    done = jail("-c", "name=third", "jid=70", f"path={small_root}", "ip4.addr=198.51.100.11", "persist")
    assert (done.returncode, done.stderr) == (
        1,
        'jail: jng70 is the interface of jail "two", which has joined it: take another jid\n',
    )
    assert lan.said(FOUR, 81) == "two"


def test_all_of_a_configuration_at_once(lan: Namespace, jail: Command, small_root: Path, tmp_path: Path) -> None:
    conf = tmp_path / "jail.conf"
    blocks = [f'j{n} {{ exec.start = "{_SERVE.format(80 + n)}"; host.hostname = j{n}; }}' for n in range(4)]
    conf.write_text("\n".join([f'path = "{small_root}"; ip4.addr = {FOUR}; persist;', *blocks]))
    done = jail("-f", str(conf), "-c")
    assert (done.returncode, done.stderr) == (0, "")
    assert [lan.said(FOUR, 80 + n) for n in range(4)] == ["j0", "j1", "j2", "j3"]
    assert jail("-f", str(conf), "-r", "*").returncode == 0


_LISTEN = r"""
import socket
one = socket.socket(socket.AF_UNIX); one.bind("\0mine"); one.listen(); print("ready", flush=True); one.accept()
"""
_CALL = r"""
import socket
try: socket.socket(socket.AF_UNIX).connect("\0mine"); print("connected")
except OSError as error: print(error.strerror)
"""


@pytest.mark.parametrize(
    ("listens", "calls", "said"), [("one", "two", "Operation not permitted"), ("two", "one", "connected")]
)
def test_abstract_sockets(
    lan: Namespace, jail: Command, jexec: Command, checkout: Path, listens: str, calls: str, said: str
) -> None:
    """The second cannot reach those of the first; the first, which had the stack to itself, those of the second can."""
    for name in ("one", "two"):
        assert jail("-c", f"name={name}", "path=/", f"ip4.addr={FOUR}", "persist").returncode == 0
    argv = [str(checkout / "bin/jexec"), listens, "/usr/bin/python3", "-ISc", _LISTEN]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "ready\n"
        assert jexec(calls, "/usr/bin/python3", "-ISc", _CALL).stdout == f"{said}\n"
        listener.kill()
    for name in ("one", "two"):
        jail("-r", name)
