"""Commands that are run in other namespaces of the host's than the jail was made in: right, or refused in one line."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from jailng.core import registry
from tests.kernel.conftest import Command
from tests.kernel.networks import Namespace, ip, run, switch
from tests.kernel.stage import Stage, mounts

ADDRESS = "198.51.100.10"


def _works(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def _addresses(place: Namespace | None = None) -> str:
    """Those of the host, or of another network namespace."""
    lines = (place.run if place else run)("ip", "-o", "-4", "address").splitlines()
    return "\n".join([line for line in lines if ": jng" not in line])  # the kernel may still be ending the veth


def _apart(*argv: str, options: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """A command in new namespaces: unshare(1)."""
    words = ["unshare", *options, "--", *map(str, argv)]
    return subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)


@pytest.fixture
def other() -> Iterator[Namespace]:
    """Another network namespace, which only a descriptor of this process keeps, with an interface ep0."""
    made = Namespace.new()
    with made.entered():
        ip("link set lo up", "link add ep0 type veth peer name far", "link set ep0 up")
    yield made
    made.close()


@pytest.fixture
def named() -> Iterator[str]:
    """A network namespace that only its name keeps, as ip-netns(8) makes it, with an interface ep0."""
    _make_named("far")
    yield "far"
    if "far" in run("ip", "netns", "list"):
        run("ip", "netns", "delete", "far")


def _make_named(name: str) -> int:
    run("ip", "netns", "add", name)
    run("ip", "-n", name, "link", "add", "ep0", "type", "veth", "peer", "name", "far")
    run("ip", "-n", name, "link", "set", "ep0", "up")
    return os.stat(f"/run/netns/{name}").st_ino


# Networks


def test_what_a_jail_had_of_its_network_goes_there(
    lan: Namespace, other: Namespace, jail: Command, small_root: Path
) -> None:
    def state() -> tuple[str, str, str, str]:
        tables = other.run("nft", "list", "tables")
        return _addresses(), switch("ipv4/conf/ep0/forwarding"), _addresses(other), tables

    before = state()
    _works(jail("-c", "name=x", f"path={small_root}", "interface=ep0", f"ip4.addr={ADDRESS}", "persist"))
    assert state()[:2] != before[:2]
    with other.entered():
        _works(jail("-r", "x"))
    assert state() == before


def test_a_namespace_is_found_by_a_descriptor(other: Namespace, jail: Command, small_root: Path) -> None:
    before = _addresses(other), other.run("nft", "list", "tables")
    with other.entered():
        _works(jail("-c", "name=x", f"path={small_root}", "interface=ep0", f"ip4.addr={ADDRESS}", "persist"))
    assert ADDRESS in _addresses(other)
    _works(jail("-r", "x"))
    assert (_addresses(other), other.run("nft", "list", "tables")) == before


def test_a_namespace_is_found_by_its_name(named: str, jail: Command, small_root: Path, checkout: Path) -> None:
    ours = ("ip", "-n", named, "-o", "-4", "address", "show", "dev", "ep0")  # the kernel may still be ending the veth
    before = run(*ours), run("ip", "netns", "exec", named, "nft", "list", "tables")
    words = ("name=x", f"path={small_root}", "interface=ep0", f"ip4.addr={ADDRESS}", "persist")
    run("ip", "netns", "exec", named, str(checkout / "bin/jail"), "-qc", *words)
    assert ADDRESS in run("ip", "-n", named, "-o", "-4", "address")
    _works(jail("-r", "x"))
    after = run(*ours), run("ip", "netns", "exec", named, "nft", "list", "tables")
    assert after == before


def test_what_went_with_its_namespace_is_not_undone_in_another(
    named: str, jail: Command, small_root: Path, checkout: Path
) -> None:
    words = ("name=x", f"path={small_root}", "interface=ep0", f"ip4.addr={ADDRESS}", "persist")
    inode = os.stat(f"/run/netns/{named}").st_ino
    run("ip", "netns", "exec", named, str(checkout / "bin/jail"), "-qc", *words)
    run("ip", "netns", "delete", named)
    for _ in range(50):  # until the kernel has taken it apart, and its number comes again
        if _make_named(named) == inode:
            break
        run("ip", "netns", "delete", named)
    else:  # a busy kernel has not done so yet: in one with another number nothing may be undone either
        _make_named(named)
    run("ip", "-n", named, "address", "add", f"{ADDRESS}/32", "dev", "ep0")
    _works(jail("-r", "x"))
    assert ADDRESS in run("ip", "-n", named, "-o", "-4", "address")


def test_the_same_address_in_two_namespaces(lan: Namespace, other: Namespace, jail: Command, small_root: Path) -> None:
    words = (f"path={small_root}", f"ip4.addr={ADDRESS},198.51.100.11", "interface=ep0", "persist")
    _works(jail("-c", "name=x", *words))
    with other.entered():
        _works(jail("-c", "name=y", *words))
    assert jail("-c", "name=z", *words).stderr == "jail: IPv4 addresses clash\n"
    _works(jail("-r", "x", "y"))


@pytest.mark.parametrize("made_elsewhere", [False, True])
def test_who_shares_the_hosts_network_shares_that_which_it_was_made_in(
    other: Namespace, jail: Command, jexec: Command, small_root: Path, made_elsewhere: bool
) -> None:
    words = ("name=x", f"path={small_root}", "ip4=inherit", "persist")
    here = os.readlink("/proc/self/ns/net")
    if made_elsewhere:
        with other.entered():
            here = os.readlink("/proc/self/ns/net")
            _works(jail("-c", *words))
        assert _works(jexec("x", "readlink", "/proc/self/ns/net")).strip() == here
    else:
        _works(jail("-c", *words))
        with other.entered():
            assert _works(jexec("x", "readlink", "/proc/self/ns/net")).strip() == here
    _works(jail("-r", "x"))


def test_who_shares_the_hosts_ipc_shares_that_which_it_was_made_in(
    jail: Command, small_root: Path, checkout: Path
) -> None:
    sysv = [f"sysv{kind}=inherit" for kind in ("msg", "sem", "shm")]
    _works(jail("-c", "name=x", f"path={small_root}", *sysv, "persist"))
    done = _apart(str(checkout / "bin/jexec"), "x", "readlink", "/proc/self/ns/ipc", options=("--ipc",))
    assert _works(done).strip() == os.readlink("/proc/self/ns/ipc")
    _works(jail("-r", "x"))


def test_commands_of_the_host_have_the_network_of_the_jails(
    other: Namespace, jail: Command, small_root: Path, tmp_path: Path
) -> None:
    conf = tmp_path / "jail.conf"
    commands = " ".join([f'{step} = "readlink /proc/self/ns/net";' for step in ("exec.prestop", "exec.poststop")])
    conf.write_text(f'x {{ path = "{small_root}"; persist; {commands} }}\n')
    _works(jail("-f", str(conf), "-qc", "x"))
    with other.entered():
        said = _works(jail("-f", str(conf), "-qr", "x"))
    assert said.split() == [os.readlink("/proc/self/ns/net")] * 2


def test_no_jail_in_one_of_another_namespace(other: Namespace, jail: Command, small_root: Path) -> None:
    _works(jail("-c", "name=x", f"path={small_root}", "children.max=1", "persist"))
    with other.entered():
        done = jail("-c", "name=x.y", f"path={small_root}", "persist")
    assert done.stderr == 'jail: jail "x" was made in another network namespace: make jails in it from there\n'
    assert done.returncode == 1
    _works(jail("-r", "x"))


# Mounts


def test_what_was_mounted_for_a_jail_is_unmounted_there(
    jail: Command, small_root: Path, tmp_path: Path, checkout: Path
) -> None:
    (small_root / "data").mkdir()
    conf = tmp_path / "jail.conf"
    conf.write_text(f'x {{ path = "{small_root}"; persist; mount = "{tmp_path} {small_root}/data nullfs ro 0 0"; }}\n')
    _works(jail("-f", str(conf), "-qc", "x"))
    assert str(small_root / "data") in [found.target for found in mounts()]
    done = _apart(str(checkout / "bin/jail"), "-f", str(conf), "-qr", "x", options=("--mount",))
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
    assert str(small_root / "data") not in [found.target for found in mounts()]


def test_a_jail_of_a_root_that_only_another_mount_namespace_has(
    jail: Command, jexec: Command, small_root: Path, tmp_path: Path, checkout: Path
) -> None:
    """It is as good as any, though the namespace has died by the time it is entered."""
    point = tmp_path / "point"
    point.mkdir()
    script = f"mount --bind {small_root} {point} && exec {checkout}/bin/jail -qc name=x path={point} persist"
    _works(_apart("sh", "-c", script, options=("--mount",)))
    assert not list(point.iterdir())
    assert "bin" in _works(jexec("x", "ls", "/")).split()
    _works(jail("-r", "x"))


# What cannot be seen


def _is_refused(done: subprocess.CompletedProcess[str], line: str) -> None:
    assert (done.returncode, done.stderr) == (1, line + "\n")


@pytest.fixture
def persistent(jail: Command, jexec: Command, small_root: Path) -> Iterator[str]:
    """A jail that is there afterwards, whatever has been tried."""
    _works(jail("-c", "name=x", "jid=77", f"path={small_root}", "persist"))
    yield "x"
    assert _works(jexec("x", "echo", "there")) == "there\n"
    _works(jail("-r", "x"))


COMMANDS = (
    ("jls", "-j", "x"),
    ("jls",),
    ("jexec", "x", "true"),
    ("jail", "-m", "name=x", "nopersist"),
    ("jail", "-r", "x"),
    ("jail", "-R", "x"),
    ("jail", "-qc", "path=/", "command=true"),
)


@pytest.mark.parametrize("argv", COMMANDS, ids=" ".join)
def test_another_pid_namespace(persistent: str, checkout: Path, argv: tuple[str, ...]) -> None:
    done = _apart(str(checkout / "bin" / argv[0]), *argv[1:], options=("--pid", "--fork", "--mount-proc"))
    line = "/run/jailng: the jails are of another PID namespace, from which alone they can be seen"
    _is_refused(done, f"{argv[0]}: {line}")


@pytest.fixture
def inner_cgroup(stage: Stage) -> Iterator[Path]:
    """A cgroup for who is to have a cgroup namespace that shows less than all."""
    made = stage.cgroup2 / "inner"
    made.mkdir()
    yield made
    until = time.monotonic() + 60
    while made.exists():
        with suppress(OSError):  # who was in it may be dying still
            made.rmdir()
        assert time.monotonic() < until


def test_another_cgroup_namespace(
    stage: Stage, persistent: str, inner_cgroup: Path, jls: Command, checkout: Path
) -> None:
    """With the hierarchy mounted anew the jail's cgroup is out of sight."""
    inside = f'mount -t cgroup2 none {stage.cgroup2} && exec "$0" "$@"'
    script = f'echo $$ >{inner_cgroup}/cgroup.procs && exec unshare --cgroup --mount sh -c \'{inside}\' "$0" "$@"'

    def there(command: str, *argv: str) -> subprocess.CompletedProcess[str]:
        words = ["sh", "-c", script, str(checkout / "bin" / command), *argv]
        return subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)

    assert _works(there("jls", "-j", "x", "name")) == "x\n"
    _is_refused(there("jexec", "x", "true"), "jexec: jail_attach: cgroup jailng/77/members cannot be seen from here")
    unseen = "jail: x: its cgroup jailng/77 cannot be seen from this cgroup namespace"
    _is_refused(there("jail", "-r", "x"), unseen)
    _is_refused(there("jail", "-R", "x"), unseen)
    assert _works(jls("-j", "x", "name")) == "x\n"


def test_another_registry(persistent: str, checkout: Path, small_root: Path) -> None:
    """One that does not know of a jail takes neither its cgroup nor its interface."""
    script = f"mount -t tmpfs none /run && exec {checkout}/bin/jail -qc name=y jid=77 path={small_root} persist"
    done = _apart("sh", "-c", script, options=("--mount",))
    _is_refused(done, "jail: cgroup jailng/77 is another jail's, of which /run/jailng does not know")


def test_another_user_namespace(persistent: str, checkout: Path) -> None:
    for command, called in (("jexec", "jail_attach"), ("jail", "jail_remove")):
        argv = ("x", "true") if command == "jexec" else ("-r", "x")
        done = _apart(str(checkout / "bin" / command), *argv, options=("--user", "--map-root-user"))
        assert done.returncode == 1
        assert done.stderr.startswith(f"{command}: ") and done.stderr.count("\n") == 1, called


def test_a_broker_that_is_started_elsewhere_makes_jails_where_its_own_is(
    lan: Namespace, other: Namespace, jail: Command, jexec: Command, checkout: Path
) -> None:
    words = ("path=/", f"ip4.addr={ADDRESS}", "persist")
    _works(jail("-c", "name=x", "interface=ep0", "children.max=1", *words))
    record = registry.find("x")
    assert record is not None
    pid = int(record.broker.split()[0])
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([pidfd], [], [], 60)[0]
    os.close(pidfd)
    with other.entered():
        _works(jexec("x", str(checkout / "bin/jail"), "-c", "name=in", *words))
    inner = registry.find("x.in")
    assert inner is not None and inner.netns == record.netns
    with other.entered():
        _works(jail("-r", "x"))
