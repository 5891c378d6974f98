"""The hostile root of a jail that may have jails in it: what it says to the broker, and does to what is born there."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jailng.core import registry
from jailng.engine.caller import Caller
from jailng.errors import JailError
from jailng.linux import processid
from tests.kernel import debian as roots
from tests.kernel import hostile
from tests.kernel.conftest import Command
from tests.kernel.networks import Namespace, ip
from tests.kernel.stage import Stage, mount, unmount
from tests.kernel.stdio_host import until

SEED = 20250701
CALLS = 150
_BEGIN = """
import json, os, signal, socket, sys, threading
from tests.fuzz.broker import ask, beside, connect, hear, pack
"""


class Attacker:
    """Root in a jail at / that may have jails in it; what it runs is Python, and speaks to the broker by itself."""

    def __init__(self, jexec: Command, checkout: Path) -> None:
        self.jexec = jexec
        self.environment = ("/usr/bin/env", f"PYTHONPATH={checkout}", "PYTHONDONTWRITEBYTECODE=1")
        self.prefix = [str(checkout / "bin/jexec"), "top", *self.environment, "/usr/bin/python3", "-c"]

    def run(self, script: str, jail: str = "top") -> list[str]:
        """What a script prints, line by line."""
        done = self.jexec(jail, *self.environment, "/usr/bin/python3", "-c", _BEGIN + script, timeout=120)
        assert (done.stderr, done.returncode) == ("", 0)
        return done.stdout.splitlines()

    @contextmanager
    def running(self, script: str) -> Iterator[None]:
        """While a script runs that has said that it is ready."""
        with subprocess.Popen([*self.prefix, _BEGIN + script], stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None and process.stdout.readline() == b"ready\n"
                yield
            finally:
                process.kill()


@pytest.fixture
def top(jail: Command, jexec: Command, checkout: Path) -> Iterator[Attacker]:
    """A jail that may have three in it, and others of the host's with names like its own."""
    for name in ("top2", "to"):
        _ok(jail("-c", f"name={name}", "path=/", "persist"))
    _ok(jail("-c", "name=top", "path=/", "children.max=3", "allow.raw_sockets", "persist"))
    yield Attacker(jexec, checkout)
    for name in ("top", "top2", "to"):
        _ok(jail("-r", name))


def _ok(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


def _broker() -> int:
    record = registry.find("top")
    assert record is not None and processid.is_alive(record.broker)
    return int(record.broker.split()[0])


def _end(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([pidfd], [], [], 60)[0]
    os.close(pidfd)


# What is said


def _held_at_rest(broker: int) -> int:
    """How many descriptors it has when it serves nobody: the last to speak may have been one who hung up."""
    children = Path(f"/proc/{broker}/task/{broker}/children")
    while children.read_text() or "S" not in Path(f"/proc/{broker}/stat").read_text().rpartition(")")[2].split()[0]:
        pass
    return len(os.listdir(f"/proc/{broker}/fd"))


def test_whatever_is_said(top: Attacker, jls: Command) -> None:
    """The broker lives, holds no more than before, tells of no jail but those inside, and nothing is left of any."""
    known = "-n", "-h", "name", "jid", "path", "ip4", "securelevel", "allow.raw_sockets", "children.max"
    before = _ok(jls(*known))
    top.run("ask('get', '')")  # by the end of which it holds what it holds
    broker = _broker()
    held = _held_at_rest(broker)
    said = top.run(f"from tests.fuzz.broker import main\nmain({CALLS}, {SEED})")
    found = json.loads(said[0])
    assert found["answers"].get("set: ok", 0) > 0 and found["answers"]["set: error"] > 0
    assert _ok(jls(*known)) == before
    assert _broker() == broker
    until(lambda: _held_at_rest(broker) == held, "it holds no more than before")


def test_more_descriptors_than_there_is_room_for(top: Attacker) -> None:
    script = """
one, other = os.pipe()
with connect() as connection:
    connection.sendmsg([pack("1", "get", "")], beside([other] * 253))
    print(hear(connection))
os.close(other)
print(os.read(one, 1))
"""
    assert top.run(script) == ["['error', '1', 'Argument list too long']", "b''"]


def test_names_lead_nowhere_else(top: Attacker) -> None:
    jids = [str(record.jid) for record in registry.jails()]
    for name in [*jids, "..", "top", "top2", "to", "2", "\ttop2", "p2", "."]:
        assert top.run(f"print(ask('get', {name!r})[0])") == ["error"], name
    for jid in jids:
        assert top.run(f"print(ask('attach', {jid}, '000', 0, ['true'], [], ['none'], [], 0, 0, '{{}}')[0])") == [
            "error"
        ]
        assert top.run(f"print(ask('update', {jid}, ['persist'])[0])") == ["error"]
        assert top.run(f"print(ask('remove', {jid}))") == ["['ok']"]  # of what is not there, as it seems
    assert [str(record.jid) for record in registry.jails()] == jids


def test_whoever_hangs_up_at_once_leaves_no_jail(top: Attacker, jls: Command) -> None:
    """Before it could be told of the jail that it wanted, or afterwards without a word."""
    script = """
for how in (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR):
    with connect() as connection:
        connection.send(pack("1", "set", ["path=/", "name=in", "persist"]))
        connection.shutdown(how)
"""
    top.run(script)
    again = "print(ask('set', ['path=/', 'name=in', 'persist'])[0])"
    until(lambda: top.run(again) == ["ok"], "the name is free")  # and who has it now has hung up after that
    until(lambda: not registry.jids_below("top"), "it is gone, too")


def test_others_than_root_do_not_keep_root_from_the_broker(top: Attacker) -> None:
    script = """
told, tell = os.pipe()
child = os.fork()
if child == 0:
    os.setuid(1000)
    held = [connect() for _ in range(100)]
    os.write(tell, b".")
    signal.pause()
os.read(told, 1)
print(ask("get", "")[0])
os.kill(child, 9)
"""
    assert top.run(script) == ["ok"]


def test_a_descriptor_that_does_not_let_itself_be_closed(jail: Command, jexec: Command, checkout: Path) -> None:
    """Beside what the broker has not read, since its sender has hung up, or is not to be heard."""
    _ok(jail("-c", "name=top", "path=/", "children.max=1", "ip4=inherit", "persist"))
    script = """
import time
told, tell = os.pipe()
child = os.fork()
if child == 0:
    os.setuid(1000)
    held = []
    for _ in range(10):
        held.append(filled())
        full = held[-1][0]
        with connect() as connection:
            connection.sendmsg([b"x"], beside([full.fileno()]))
            connection.sendmsg([b"x"], beside([full.fileno()]))
            let_go(full)
    os.write(tell, b".")
    signal.pause()
os.read(told, 1)
time.sleep(0.5)
print(ask("get", "")[0])
os.kill(child, 9)
"""
    try:
        assert Attacker(jexec, checkout).run(hostile.LINGERING + script) == ["ok"]
    finally:
        _ok(jail("-r", "top"))


def test_root_of_an_inner_jail_is_not_root_here(top: Attacker) -> None:
    """Whose uids the outer root can take: they are its own, and yet not root."""
    script = """
told, tell = os.pipe()
if os.fork() == 0:
    os.setuid(65536)  # the first uid of a jail in this one
    os.write(tell, ask("set", ["path=/", "persist"])[2].encode())
    os._exit(0)
print(os.read(told, 99).decode())
"""
    assert top.run(script) == ["jail_set: Operation not permitted"]


def test_an_inner_jail_has_no_way_to_the_outer_broker(top: Attacker, jail: Command) -> None:
    _ok(jail("-c", "name=top.in", "path=/", "persist"))
    script = """
try:
    connect()
except OSError as error:
    print(error.strerror)
"""
    assert top.run(script, "top.in") == ["No such file or directory"]


def test_the_peer_is_nobody_that_can_be_reached(top: Attacker) -> None:
    """What the kernel tells of the other end: no pid, no user, and a pidfd that is good for nothing."""
    script = """
import struct
with connect() as connection:
    pid, uid, gid = struct.unpack("iii", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    print(pid, uid)
    try:
        pidfd = connection.getsockopt(socket.SOL_SOCKET, 77)
        signal.pidfd_send_signal(pidfd, 0)
        print("signalled")
    except OSError as error:
        print("refused")
"""
    assert top.run(script) == ["0 65534", "refused"]


# What is asked for


def test_the_host_s_addresses_are_the_host_s_to_lend(
    lan: Namespace, jail: Command, jexec: Command, checkout: Path
) -> None:
    """With ip4=inherit all of them are there; but a jail with one of its own takes it from whoever has it."""
    ip("address add 198.51.100.10/24 dev ep0")
    _ok(jail("-c", "name=top", "path=/", "children.max=3", "ip4=inherit", "ip6=inherit", "persist"))
    attacker = Attacker(jexec, checkout)
    for address in ("ip4.addr=198.51.100.10", "ip4.addr=198.51.100.1", "ip4.addr=192.0.2.1", "ip6.addr=2001:db8::7"):
        script = f"print(ask('set', ['path=/', 'persist', {address!r}])[2])"
        assert attacker.run(script) == ["jail_set: Operation not permitted"]
    _ok(jail("-c", "name=top.in", "path=/", "ip4.addr=198.51.100.10", "persist"))
    _ok(jail("-r", "top"))


def test_a_way_that_changes_all_the_time(top: Attacker, tmp_path: Path) -> None:
    """A directory and a link out of the jail change places while jails are made there."""
    where = tmp_path / "jails"
    where.mkdir(mode=0o700)
    (where / "one").mkdir()
    (where / "two").symlink_to("/sys")
    script = f"""
import ctypes
os.chdir({str(where)!r})
libc = ctypes.CDLL(None)
if os.fork() == 0:
    while os.getppid() != 1:
        libc.syscall({316 if os.uname().machine == "x86_64" else 276}, -100, b"one", -100, b"two", 2)
    os._exit(0)
for _ in range(25):
    for path in ("one", "one/.", "two/../one"):
        with connect() as connection:
            connection.send(pack("1", "set", [f"path={where}/{{path}}", "persist"]))
            heard = hear(connection)
            if heard[0] == "ok":
                print("made", heard[1], flush=True)
                connection.send(b"up")
                hear(connection)
                ask("remove", heard[1])
os._exit(0)
"""
    for line in top.run(script):
        assert line.startswith("made")
    assert not registry.jids_below("top")


def test_the_way_to_its_own_root_is_not_the_hosts(
    jail: Command, jexec: Command, jls: Command, tmp_path: Path, small_root: Path
) -> None:
    """What is read-only below the root stays so: no other way leads there by a link in the place of an inner root.

    The root of ``o.i`` gives way to a link to the host's /, below which the same directory lies writable.
    """
    shared = tmp_path / "data"
    shared.mkdir()
    (small_root / "in").mkdir()
    inner = roots.small(small_root / "in/root")
    (inner / str(shared)[1:]).mkdir(parents=True)
    mount(str(shared), inner / str(shared)[1:], None, 0x1000)
    mount("none", inner / str(shared)[1:], None, 0x1000 | 0x20 | 1)  # MS_BIND MS_REMOUNT MS_RDONLY
    try:
        _ok(jail("-c", "name=o", f"path={small_root}", "children.max=3", "persist"))
        _ok(jail("-c", "name=o.i", f"path={inner}", "children.max=1", "persist"))
        assert "Read-only" in jexec("o.i", "touch", f"{shared}/x").stderr
        _ok(jexec("o", "mv", "/in/root", "/in/moved"))
        _ok(jexec("o", "ln", "-s", "/", "/in/root"))
        record = registry.find("o.i")
        assert record is not None
        with pytest.raises(JailError):
            Caller(record, record.base, True).open_path(str(shared))
    finally:
        _ok(jail("-r", "o"))
        unmount(small_root / "in/moved" / str(shared)[1:])


# What is done meanwhile


_LOOP = """
def loop(name):
    while True:
        with connect() as connection:
            connection.send(pack("1", "set", ["path=/", f"name={name}", "persist"]))
            if hear(connection)[0] == "ok":
                connection.send(b"up")
                hear(connection)
        ask("remove", 0)
        for jid in ask("get", "")[2::2]:
            ask("remove", jid)
"""


def test_changes_while_jails_are_made(top: Attacker, jail: Command, jls: Command) -> None:
    """Neither waits for the other for ever; nobody keeps what was taken away."""
    script = f"""{_LOOP}
for name in "ab":
    threading.Thread(target=loop, args=[name], daemon=True).start()
print("ready", flush=True)
signal.pause()
"""
    with top.running(script):
        for _ in range(8):
            _ok(jail("-m", "name=top", "allow.noraw_sockets"))
            rows = _ok(jls("-n", "name", "allow.raw_sockets")).splitlines()
            assert not [row for row in rows if "name=top" in row and "allow.raw_sockets=true" in row.split()]
            _ok(jail("-m", "name=top", "allow.raw_sockets"))
        for one, other in (("top", "pot"), ("pot", "top")):
            jid = next(record.jid for record in registry.jails() if record.name == one)
            _ok(jail("-m", f"jid={jid}", f"name={other}"))


def test_removal_while_jails_are_made(jail: Command, jexec: Command, checkout: Path) -> None:
    attacker = Attacker(jexec, checkout)
    for _ in range(3):
        _ok(jail("-c", "name=top", "path=/", "children.max=3", "persist"))
        script = f"""{_LOOP}
for name in "abc":
    threading.Thread(target=loop, args=[name], daemon=True).start()
print("ready", flush=True)
signal.pause()
"""
        with attacker.running(script):
            _ok(jail("-r", "top"))
        assert registry.jids() == []


_STOPPER = """
own = {int(name) for name in os.listdir("/proc") if name.isdigit()}
connection = connect()
connection.send(pack("1", "set", ["path=/", "name=in", "persist"]))
stopped = set()
while not stopped:
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in own:
            for what in ("root", "cwd", "exe", "environ", "maps", "mem"):
                try:
                    file = os.open(f"/proc/{name}/{what}", os.O_RDONLY) if what in ("environ", "maps", "mem") else -1
                    got = os.read(file, 1) if what == "environ" else os.readlink(f"/proc/{name}/{what}")
                except OSError:
                    pass
            try:
                os.kill(int(name), signal.SIGSTOP)
                stopped.add(name)
            except OSError:
                pass
print("ready", flush=True)
"""


def test_a_jail_that_is_stopped_while_it_is_made_keeps_nobody_waiting(
    jail: Command, jexec: Command, checkout: Path
) -> None:
    """Its outer jail is locked for that time: it can be removed nevertheless."""
    _ok(jail("-c", "name=top", "path=/", "children.max=3", "persist"))
    with Attacker(jexec, checkout).running(f"{_STOPPER}\nsignal.pause()"):
        _ok(jail("-r", "top", timeout=9))
    assert registry.jids() == []


def test_a_jail_that_is_stopped_while_it_is_made_is_given_up(top: Attacker, jail: Command) -> None:
    with top.running(f"{_STOPPER}\nsignal.pause()"):
        _ok(jail("-m", "name=top", "meta.a=1", timeout=30))
    for _ in range(1000):  # a call that was begun last is undone when the broker sees that its caller has gone
        if not registry.jids_below("top"):
            return
        _ok(jail("-m", "name=top", "meta.a=2"))
    raise AssertionError(registry.jids_below("top"))


def test_whoever_spoils_its_dev_cannot_keep_the_host_out(top: Attacker, jexec: Command) -> None:
    top.run('os.rename("/dev/.jailng", "/dev/.gone")\nopen("/dev/.jailng", "w").close()')
    _end(_broker())
    assert _ok(jexec("top", "echo", "in")) == "in\n"
    top.run('os.unlink("/dev/.jailng")\nos.rename("/dev/.gone", "/dev/.jailng")')
    assert top.run("print(ask('get', '')[0])") == ["ok"]


def test_the_broker_dies_at_any_moment(top: Attacker, jail: Command, jexec: Command, stage: Stage) -> None:
    """What was being made then is cleared away by the next command."""
    script = """
with connect() as connection:
    connection.send(pack("1", "set", ["path=/", "name=in", "children.max=1", "persist"]))
    print("ready", flush=True)
    signal.pause()
"""
    for _ in range(5):
        broker = _broker()
        with top.running(script):
            _end(broker)
        for _ in range(100):  # a child that is dying has the jail's lock still
            _ok(jexec("top", "true"))
            record = registry.find("top")
            if record is not None and processid.is_alive(record.broker):
                break
        assert top.run("print(ask('set', ['path=/', 'name=in', 'persist'])[0])") == ["ok"]


def _one_at(level: int) -> int:
    """The jid of a jail so many levels below the host's, once there are all of them."""
    while True:
        found = {record.name.count("."): record.jid for record in registry.jails() if record.name.startswith("top.")}
        if 3 in found and level in found:
            return found[level]


def test_three_levels_that_come_and_go_from_both_sides(top: Attacker, jail: Command) -> None:
    """Made inside at each level, removed inside and by the host at once, in any order; then nothing is left."""
    script = """
import random

def make(name, most):
    with connect() as connection:
        connection.send(pack("1", "set", ["path=/", f"name={name}", f"children.max={most}", "persist"]))
        if hear(connection)[0] == "ok":
            connection.send(b"up")
            hear(connection)

def loop(name, most):
    while True:
        make(name, most)

def remove():
    while True:
        jids = ask("get", "")[2::2]
        if len(jids) > 2:
            ask("remove", random.choice(jids))

for name, most in (("a", 2), ("a.b", 1), ("a.b.c", 0)):
    threading.Thread(target=loop, args=[name, most], daemon=True).start()
threading.Thread(target=remove, daemon=True).start()
print("ready", flush=True)
signal.pause()
"""
    broker = _broker()
    with top.running(script):
        for level in (3, 2, 1, 3, 2, 1):
            said = jail("-R", str(_one_at(level)))
            assert said.returncode == 0 or "not found" in said.stderr, said.stderr
    assert _broker() == broker
    for _ in range(100):
        top.run('for jid in ask("get", "")[2::2]: ask("remove", jid)')
        if not registry.jids_below("top"):
            break
        _ok(jail("-m", "name=top", "meta.a=1"))
        _ok(jail("-c", "name=top.z", "path=/", "command=true"))  # clears away what died half-made
    assert registry.jids_below("top") == []


@pytest.mark.parametrize(("uids", "seen"), [("private", "data"), ("shared", "")])
def test_what_is_mounted_below_with_the_uids_of_the_host(
    small_root: Path, jail: Command, jexec: Command, uids: str, seen: str
) -> None:
    """The outer root could exchange the mount points meanwhile, and any file system could be cloned then."""
    place = small_root / "mnt"
    place.mkdir(exist_ok=True)
    mount("none", place, "tmpfs")
    (place / "data").touch()
    try:
        assert (
            jail("-c", "name=o", f"path={small_root}", f"ng.uids={uids}", "children.max=1", "persist").returncode == 0
        )
        assert jexec("o", "ls", "/mnt").stdout == "data\n"
        assert jail("-c", "name=o.i", f"path={small_root}", "persist").returncode == 0
        assert jexec("o.i", "ls", "/mnt").stdout.strip() == seen
        assert jail("-r", "o").returncode == 0
    finally:
        unmount(place)
