"""What monitors and build tools ask of sysctl(8) and jls(8), to the letter, on the host and in a jail.

The commands alone are in tests/fidelity (jail/clients.txt, jls/clients.txt).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Command
from tests.kernel.networks import Namespace

Done = subprocess.CompletedProcess[str]
# poudriere compares each with a number, by `[ $(sysctl -n NAME) -eq 1 ]`, in a jail.
_POUDRIERE = (
    "socket_unixiproute_only allow_raw_sockets chflags_allowed sysvipc_allowed mlock_allowed "
    "enforce_statfs mount_allowed mount_devfs_allowed mount_nullfs_allowed mount_tmpfs_allowed"
)


@pytest.fixture(params=[False, True], ids=["host", "jail"])
def inside(request: pytest.FixtureRequest, jail: Command) -> Iterator[bool]:
    """Whether it is asked in a jail, which has the host's tree."""
    words = ("name=seen", "path=/", "persist", "children.max=1", "allow.raw_sockets", "allow.sysvipc")
    if request.param:
        assert jail("-c", *words).returncode == 0
    yield bool(request.param)
    if request.param:
        assert jail("-r", "seen").returncode == 0


@pytest.fixture
def ask(inside: bool, checkout: Path) -> Callable[[str], Done]:
    """A line of sh(1) with FreeBSD's spellings first on PATH."""
    path = f"{checkout}/shims:{checkout}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    before = [f"{checkout}/bin/jexec", "-l", "seen"] if inside else []

    def run(line: str) -> Done:
        argv = [*before, "env", f"PATH={path}", "sh", "-c", line]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60)

    return run


def test_whether_this_is_a_jail(ask: Callable[[str], Done], inside: bool) -> None:
    """Chef's ohai, BastilleBSD's create, poudriere, facter."""
    jailed = int(inside)
    for line, answer in (
        ("sysctl -n security.jail.jailed", f"{jailed}\n"),
        ("sysctl security.jail.jailed", f"security.jail.jailed: {jailed}\n"),
        ('[ "$(sysctl -n security.jail.jailed)" -eq 1 ] && echo jailed || echo host', ["host\n", "jailed\n"][jailed]),
        ("sysctl security.jail.jailed | sed 's/security.jail.jailed: //'", f"{jailed}\n"),
    ):
        done = ask(line)
        assert (done.stdout, done.stderr, done.returncode) == (answer, "", 0), line


def test_what_ohai_takes_for_a_host_of_jails(ask: Callable[[str], Done]) -> None:
    before = ask("jls -n")
    assert (before.stderr, before.returncode) == ("", 0)
    assert ask("jail -c name=one path=/ persist").returncode == 0
    assert len(ask("jls -n").stdout.splitlines()) == len(before.stdout.splitlines()) + 1
    assert ask("jail -r one").returncode == 0


def test_what_poudriere_asks_before_it_builds(ask: Callable[[str], Done], inside: bool) -> None:
    told = {}
    for name in _POUDRIERE.split():
        done = ask(f"[ $(sysctl -n security.jail.{name}) -ge 0 ] && sysctl -n security.jail.{name}")
        assert (done.stderr, done.returncode) == ("", 0), name
        told[name] = int(done.stdout)
    assert (told["allow_raw_sockets"], told["sysvipc_allowed"], told["enforce_statfs"]) == (inside, inside, 2)


@pytest.fixture
def web(jail: Command, small_root: Path, lan: Namespace) -> Iterator[Path]:
    words = ("host.hostname=web.example.org", "ip4.addr=198.51.100.10", "ip6.addr=2001:db8:1::10", "persist")
    assert jail("-c", "name=web", f"path={small_root}", *words).returncode == 0
    yield small_root
    assert jail("-r", "web").returncode == 0


def test_monitors(jls: Command, web: Path) -> None:
    """LibreNMS's snmp/poudriere; OSLV::Monitor of 2024 and of 2026; Sylve and kleened."""
    jid = int(jls("-j", "web", "jid").stdout)

    def only(*words: str) -> dict[str, object]:
        done = jls(*words)
        assert (done.stderr, done.returncode) == ("", 0)
        (found,) = json.loads(done.stdout)["jail-information"]["jail"]
        return dict(found)

    assert only("--libxo", "json") == {
        "jid": jid, "ipv4": "198.51.100.10", "hostname": "web.example.org", "path": str(web),
    }  # fmt: skip
    everything = only("-h", "--libxo", "json")
    for name, value in (
        ("name", "web"),
        ("host.hostname", "web.example.org"),
        ("path", str(web)),
        ("ip4.addr", ["198.51.100.10"]),
        ("ip6.addr", ["2001:db8:1::10"]),
    ):
        assert everything[name] == value
    verbose = only("-v", "--libxo", "json")
    assert (verbose["name"], verbose["state"], verbose["ipv4_addrs"]) == ("web", "ACTIVE", ["198.51.100.10"])
