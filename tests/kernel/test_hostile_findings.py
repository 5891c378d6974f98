"""What the kernel really does, as it is to be seen in a jail and on it.

docs/attacks.md lists which test covers which finding; here are those that no other test happens to cover.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import hostile
from tests.kernel.conftest import Command
from tests.kernel.stage import MS_BIND, Stage, mount, unmount

_libc = ctypes.CDLL(None, use_errno=True)
_NS_GET_OWNER_UID = 0xB704
BASE = 0x70000000


@pytest.fixture(scope="module")
def hostile_root(request: pytest.FixtureRequest, stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the attempts are made; its content is a hostile root's, and no test may rely on it."""
    return hostile.prepare(request, stage, tmp_path_factory)


class Jail:
    """A running jail, from inside and from outside."""

    def __init__(self, stage: Stage, jexec: Command, jid: str) -> None:
        directory = stage.cgroup2 / "jailng" / jid
        self.init = int((directory / "init/cgroup.procs").read_text())
        self.jexec = jexec

    def run(self, script: str) -> Any:
        """What a Python script prints inside, as JSON."""
        done = self.jexec("found", hostile.PYTHON, "-IS", "-c", "import json, os\n" + script)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def status(self) -> dict[str, str]:
        """/proc/PID/status of PID 1."""
        with open(f"/proc/{self.init}/status") as file:
            return dict(line.rstrip("\n").split(":\t", 1) for line in file)


def _made(stage: Stage, jail: Command, jexec: Command, root: Path, *parameters: str) -> Iterator[Jail]:
    made = jail("-i", "-c", "name=found", "persist", f"path={root}", *parameters)
    assert made.returncode == 0, made.stderr
    yield Jail(stage, jexec, made.stdout.strip())
    removed = jail("-R", "found")
    assert removed.returncode == 0, removed.stderr


@pytest.fixture
def private(stage: Stage, jail: Command, jexec: Command, hostile_root: Path) -> Iterator[Jail]:
    yield from _made(stage, jail, jexec, hostile_root)


@pytest.fixture
def shared(stage: Stage, jail: Command, jexec: Command, hostile_root: Path) -> Iterator[Jail]:
    yield from _made(stage, jail, jexec, hostile_root, "ng.uids=shared")


def _owner(pid: int) -> int:
    fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
    try:
        answer = fcntl.ioctl(fd, _NS_GET_OWNER_UID, bytes(4))
        return int.from_bytes(answer, "little")
    finally:
        os.close(fd)


def test_a_private_user_namespace(private: Jail) -> None:
    """Created by the jail's own first uid, to whom the kernel counts what it takes; 65536 wide, groups too."""
    assert _owner(private.init) == BASE
    for name in ("uid_map", "gid_map"):
        assert Path(f"/proc/{private.init}/{name}").read_text().split() == ["0", str(BASE), "65536"]


def test_a_shared_user_namespace(shared: Jail) -> None:
    """The host's first 65536 and no more, and still not created by root."""
    assert _owner(shared.init) == BASE
    for name in ("uid_map", "gid_map"):
        assert Path(f"/proc/{shared.init}/{name}").read_text().split() == ["0", "0", "65536"]


@pytest.mark.parametrize("kind", ["private", "shared"])
def test_pid_1_is_confined_as_its_jail_is(request: pytest.FixtureRequest, kind: str) -> None:
    """Root inside cannot trace it (but a guest's own); it has nothing more all the same."""
    jail: Jail = request.getfixturevalue(kind)
    outside = jail.status()
    inside = jail.run("""
with open("/proc/self/status") as file:
    print(json.dumps(dict(line.rstrip().split(":\\t", 1) for line in file if ":\\t" in line.rstrip())))
""")
    for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb", "CapInh", "Seccomp", "Seccomp_filters", "NoNewPrivs"):
        assert outside[name] == inside[name], name
    assert inside["Seccomp"] == "2"
    assert inside["NoNewPrivs"] == "0"  # or there would be no su


def test_the_mount_namespace_is_the_hosts(private: Jail) -> None:
    """And all else is the jail's."""
    own = os.stat("/proc/self/ns/user").st_ino
    theirs = os.stat(f"/proc/{private.init}/ns/user").st_ino
    found = {}
    for name in ("mnt", "pid", "net", "uts", "ipc", "cgroup", "time"):
        fd = os.open(f"/proc/{private.init}/ns/{name}", os.O_RDONLY)
        owner = fcntl.ioctl(fd, 0xB701)  # NS_GET_USERNS
        found[name] = {own: "host", theirs: "jail"}[os.fstat(owner).st_ino]
        os.close(owner)
        os.close(fd)
    assert found == dict.fromkeys(("pid", "net", "uts", "ipc", "cgroup"), "jail") | {"mnt": "host", "time": "host"}


_KINDS = {
    "user": 0x10000000, "mnt": 0x20000, "pid": 0x20000000, "net": 0x40000000, "ipc": 0x8000000, "uts": 0x4000000,
    "time": 0x80,
}  # fmt: skip


def _unshared(flag: int, before: Callable[[], None]) -> int:
    """The errno of unshare(2) after ``before``, with all capabilities and no filter."""
    child = os.fork()
    if child == 0:
        found = 255
        try:
            before()
            found = ctypes.get_errno() if _libc.unshare(flag) else 0
        finally:
            os._exit(found)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_no_namespaces_even_without_the_filter(private: Jail) -> None:
    """As the jail's uid 0, who then has all capabilities in its user namespace."""
    with open(f"/proc/{private.init}/ns/user") as namespace:

        def inside() -> None:
            assert _libc.setns(namespace.fileno(), 0) == 0
            os.setresuid(0, 0, 0)

        assert {name: _unshared(flag, inside) for name, flag in _KINDS.items()} == dict.fromkeys(_KINDS, errno.ENOSPC)

    def in_any_other() -> None:
        assert _libc.unshare(_KINDS["user"]) == 0

    for name, flag in _KINDS.items():
        assert _unshared(flag, in_any_other if name != "user" else lambda: None) == 0, name


@pytest.mark.parametrize("kind", ["private", "shared"])
def test_what_is_mounted(request: pytest.FixtureRequest, kind: str, hostile_root: Path) -> None:
    """No hierarchy, no sysfs, nothing of the host's but the root; what the jail has is whole, masks apart."""
    mounts = request.getfixturevalue(kind).run('print(json.dumps([l.split() for l in open("/proc/self/mountinfo")]))')
    assert [line[4] for line in mounts[:6]] == ["/", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/proc"]
    for line in mounts:
        kind_of = line[line.index("-") + 1]
        where, root, options = line[4], line[3], line[5].split(",")
        assert "nosuid" in options or where == "/"
        assert "nodev" in options or where.startswith("/dev")
        if where.startswith("/proc/"):
            # On driver the host writes what the jail reads elsewhere; nobody inside can open it (test_procfiles).
            assert ("ro" in options) == (where != "/proc/driver") and kind_of in ("proc", "ramfs")
            assert (where, root) == ("/proc/sys", "/sys") or kind_of == "ramfs"
        elif where != "/":
            assert root == "/"
        assert not any(word.startswith(("shared:", "master:")) for word in line[6 : line.index("-")])


def test_what_jail_root_does_with_its_own(private: Jail) -> None:
    """Terminals with their group, queues, sockets in /dev, temporary files, set-uid programs and capabilities."""
    found = private.run("""
import ctypes, socket, subprocess
libc = ctypes.CDLL(None)
facts = {}
master, slave = os.openpty()
before = os.fstat(slave)
os.fchown(slave, 1000, before.st_gid)
os.fchmod(slave, 0o600)
after = os.fstat(slave)
facts["terminal"] = [before.st_gid, after.st_uid, after.st_mode & 0o777]
facts["queue"] = libc.syscall(240, b"mine", os.O_CREAT | os.O_RDWR, 0o600, None) >= 0 and os.listdir("/dev/mqueue")
libc.syscall(241, b"mine")
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
    made.bind("/dev/log")
os.unlink("/dev/log")
with open("/dev/shm/mine", "w"):
    pass
facts["owners"] = [os.stat(path).st_uid for path in ("/dev", "/dev/shm", "/dev/shm/mine", "/dev/null")]
names = ("null", "zero", "full", "random", "urandom", "tty")
facts["modes"] = [oct(os.stat("/dev/" + name).st_mode & 0o777) for name in names]
os.unlink("/dev/shm/mine")
subprocess.run(["cp", "/usr/bin/id", "/tmp/id"], check=True)
os.chmod("/tmp/id", 0o4755)
run = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "/tmp/id", "-u"]
facts["set-uid"] = subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()
os.chmod("/tmp/id", 0o755)
# struct vfs_cap_data of revision 2: effective, CAP_NET_BIND_SERVICE permitted
value = (0x02000001).to_bytes(4, "little") + (1 << 10).to_bytes(4, "little") + bytes(12)
os.setxattr("/tmp/id", "security.capability", value)
facts["capability"] = len(os.getxattr("/tmp/id", "security.capability"))
os.unlink("/tmp/id")
print(json.dumps(facts))
""")
    assert found["terminal"] == [5, 1000, 0o600]
    assert found["queue"] == ["mine"]
    assert found["owners"] == [0, 0, 0, 0]
    assert found["modes"] == ["0o666"] * 6
    assert found["set-uid"] == "0"
    assert found["capability"] in (20, 24)


def test_a_jail_counts_its_own_time(private: Jail) -> None:
    """Up since it was made, whatever asks: no daemon answers for the kernel."""
    found = private.run("""
import time
with open("/proc/uptime") as file:
    up = float(file.read().split()[0])
with open("/proc/stat") as file:
    since = [int(line.split()[1]) for line in file if line.startswith("btime")]
with open("/proc/1/stat") as file:
    started = int(file.read().rpartition(")")[2].split()[19])
own = time.clock_gettime(time.CLOCK_BOOTTIME)
print(json.dumps([up, own, time.time() - since[0], started / os.sysconf("SC_CLK_TCK")]))
""")
    assert all(-2 <= seconds < 60 for seconds in found), found


def test_a_setuid_program_made_inside_is_out_of_reach(private: Jail, hostile_root: Path) -> None:
    """It is one on the host's disk, so no other user of the host may get at it: the directory above is root's alone."""
    private.run("""
import shutil
shutil.copy("/usr/bin/id", "/tmp/bait")
os.chmod("/tmp/bait", 0o4755)
print("null")
""")
    bait = hostile_root / "tmp/bait"
    status = bait.stat()
    assert (status.st_uid, status.st_mode & 0o7777) == (0, 0o4755)
    try:
        with pytest.raises(PermissionError):
            subprocess.run([str(bait)], user=65534, group=65534, extra_groups=[])
    finally:
        bait.unlink()


def test_cores_that_go_to_a_socket(jail: Command, tmp_path: Path) -> None:
    """No limit keeps them from one (coredump_sock_connect() in fs/coredump.c), unlike from a program."""
    pattern = tmp_path / "pattern"
    pattern.write_text("@/run/cores.socket\n")
    words = ("name=a", "path=/", "persist")
    said = (
        "kernel.core_pattern=@/run/cores.socket: no limit keeps a jail's cores from a socket, behind which is root of "
        "the host: name a file or a program (or set ng.lenient)\n"
    )
    mount(str(pattern), "/proc/sys/kernel/core_pattern", None, MS_BIND)
    try:
        for plan in ((), ("--plan",)):
            refused = jail(*plan, "-c", *words)
            assert (refused.returncode, refused.stderr) == (1, f"jail: {said}")
        let_pass = jail("-c", *words, "ng.lenient")
        assert jail("-r", "a").returncode == 0
        assert (let_pass.returncode, let_pass.stderr) == (0, f"jail: {said}")
    finally:
        unmount("/proc/sys/kernel/core_pattern")
