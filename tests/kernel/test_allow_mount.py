"""allow.mount and allow.mount.*: root inside mounts what is named there and nothing else, and all for itself."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import hostile
from tests.kernel.confined import child, judges_types, needs_a_judge
from tests.kernel.conftest import Command
from tests.kernel.stage import CLONE_NEWNS, Stage, mount, mounts, unmount, unshare

RDONLY, NOSUID, NODEV, REMOUNT, BIND, MOVE, REC = 1, 2, 4, 32, 0x1000, 0x2000, 0x4000
UNBINDABLE, PRIVATE, SLAVE, SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20
FORCE, DETACH = 1, 2
NULLFS = ("enforce_statfs=1", "allow.mount", "allow.mount.nullfs")
TMPFS = ("enforce_statfs=1", "allow.mount", "allow.mount.tmpfs")
FUSEFS = ("enforce_statfs=1", "allow.mount", "allow.mount.fusefs")
TYPES = "ramfs proc sysfs devpts mqueue overlay cgroup2 cgroup bpf binfmt_misc devtmpfs fuse fuse.x ext4 tmpf".split()

PROLOGUE = """
import ctypes, errno, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def outcome(result):
    return errno.errorcode[ctypes.get_errno()] if result else ""
def mount(source, target, kind=None, flags=0, options=None):
    words = [word and word.encode() for word in (source, target, kind, options)]
    return outcome(libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]))
def unmount(target, flags=0):
    return outcome(libc.umount2(target.encode(), flags))
def reads(path):
    try:
        with open(path, "rb") as file:
            return file.read(100).decode("latin-1")
    except OSError as error:
        return errno.errorcode[error.errno]
def mounted():
    return [line.split()[4] for line in open("/proc/self/mountinfo")]
for name in ("/a", "/b"):
    os.makedirs(name, exist_ok=True)
"""
Inside = Callable[..., Any]


@pytest.fixture(scope="module")
def root(request: pytest.FixtureRequest, stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Debian with Python and mount(8)."""
    return hostile.prepare(request, stage, tmp_path_factory)


@pytest.fixture
def inside(jail: Command, root: Path) -> Inside:
    """What a Python script prints as JSON, as root of a jail with these parameters."""

    def run(script: str, *parameters: str) -> Any:
        argv = ["-c", f"path={root}", *parameters, f"command={hostile.PYTHON}", "-IS", "-c", PROLOGUE + script]
        done = jail(*argv)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


EVERY_WAY = f"""
ways = {{
    "bind": mount("/etc", "/a", None, {BIND}),
    "bind, all below": mount("/etc", "/a", None, {BIND | REC}),
    "remount": mount(None, "/", None, {REMOUNT}),
    "remount, bind": mount(None, "/", None, {REMOUNT | BIND | NODEV | NOSUID}),
    "move": mount("/dev/shm", "/a", None, {MOVE}),
    "unmount": unmount("/a"),
    "shared": mount(None, "/", None, {SHARED | REC}),
    "slave": mount(None, "/", None, {SLAVE}),
    "private": mount(None, "/", None, {PRIVATE}),
    "unbindable": mount(None, "/", None, {UNBINDABLE}),
}}
for kind in ("tmpfs", "tmpfs.x", *{TYPES!r}):
    ways[kind] = mount("none", "/a", kind)
for name, number in (("fsopen", 430), ("open_tree", 428), ("fspick", 433), ("move_mount", 429), ("mount_setattr", 442)):
    ways[name] = outcome(libc.syscall(number, -100, b"/", 1, None, 0) < 0)
for name, number in (("unshare", 272), ("setns", 308), ("pivot_root", 155), ("sethostname", 170)):
    ways[name] = outcome(libc.syscall(number, {1 << 17}, 1) < 0)
print(json.dumps(ways))
"""
CLOSED_ALWAYS = ("move", "shared", "slave", "private", "unbindable", "unshare", "setns", "pivot_root", "sethostname")
BY_DESCRIPTOR = ("fsopen", "open_tree", "fspick", "move_mount", "mount_setattr")


@pytest.mark.parametrize(
    "parameters",
    [
        (),
        ("enforce_statfs=1",),
        ("enforce_statfs=1", "allow.mount"),
        ("enforce_statfs=1", "allow.mount.nullfs", "allow.mount.tmpfs"),
        ("allow.mount", "allow.mount.nullfs"),
        ("enforce_statfs=2", "allow.mount", "allow.mount.nullfs"),
    ],
)
def test_everything_is_shut_without_all_three(inside: Inside, parameters: tuple[str, ...]) -> None:
    """allow.mount, the kind, and enforce_statfs below 2: as on FreeBSD, EPERM inside, and the jail is made."""
    assert set(inside(EVERY_WAY, *parameters).values()) == {"EPERM"}


def test_nullfs_opens_bind_mounts_alone(inside: Inside) -> None:
    found = inside(EVERY_WAY, *NULLFS)
    opened = {"bind": "", "bind, all below": "", "remount, bind": "", "unmount": ""}
    shut = dict.fromkeys((*CLOSED_ALWAYS, "remount", "tmpfs", "tmpfs.x", *TYPES), "EPERM")
    assert found == opened | shut | dict.fromkeys(BY_DESCRIPTOR, "ENOSYS")


def test_tmpfs_opens_that_type_alone(inside: Inside, jail: Command, jls: Command, root: Path) -> None:
    """And on a kernel that judges no types there is no such jail, nor anything left of it."""
    if not judges_types():
        refused = jail("-c", "name=a", f"path={root}", "persist", *TMPFS)
        assert refused.returncode == 1
        assert refused.stderr.startswith("jail: allow.mount.tmpfs: this kernel ")
        assert "CONFIG_BPF_LSM" in refused.stderr
        assert jls("-j", "a").returncode == 1
        return
    found = inside(EVERY_WAY, *TMPFS)
    assert found.pop("tmpfs.x") == "ENODEV"
    # Who owns the file system: / is the host's.
    assert found.pop("remount") == "EPERM"
    opened = {"tmpfs": "", "remount, bind": "", "unmount": "EINVAL"}
    shut = dict.fromkeys((*CLOSED_ALWAYS, "bind", "bind, all below", *TYPES), "EPERM")
    assert found == shut | opened | dict.fromkeys(BY_DESCRIPTOR, "ENOSYS")


@needs_a_judge
def test_a_tmpfs_is_the_jails_own(inside: Inside) -> None:
    script = f"""
said = [mount("none", "/a", "tmpfs", {NOSUID}, "size=1m"), mount("none", "/a", "tmpfs", {REMOUNT}, "size=2m")]
os.mkdir("/a/d")
said += [mount("/a/d", "/b", None, {BIND}), os.statvfs("/a").f_blocks * 4096, unmount("/b"), unmount("/a")]
print(json.dumps(said))
"""
    assert inside(script, *TMPFS) == ["", "", "EPERM", 2 << 20, "EINVAL", ""]
    assert inside(script, *TMPFS, "allow.mount.nullfs") == ["", "", "", 2 << 20, "", ""]


@needs_a_judge
@pytest.mark.parametrize("leaf", ["init", "members"])
def test_who_is_in_the_cgroup_is_judged(jail: Command, root: Path, stage: Stage, leaf: str) -> None:
    """PID 1's leaf as well, which a guest's own may be traced in; and nobody else: here with the host's privileges."""
    made = jail("-i", "-c", "name=a", f"path={root}", "persist", *TMPFS)
    assert made.returncode == 0, made.stderr
    procs = stage.cgroup2 / "jailng" / made.stdout.strip() / leaf / "cgroup.procs"

    def outcomes() -> list[int]:
        unshare(CLONE_NEWNS)
        found = []
        for kind in ("tmpfs", "ramfs", "proc"):
            try:
                mount("none", "/mnt", kind)
                found.append(0)
            except OSError as error:
                found.append(error.errno or -1)
        return found

    def in_the_cgroup() -> list[int]:
        procs.write_text("0")
        return outcomes()

    found = child(in_the_cgroup), child(outcomes)
    assert jail("-R", "a").returncode == 0
    assert found == ([0, errno.EPERM, errno.EPERM], [0, 0, 0])


SERVER = """
import signal, struct, threading
fd = os.open("/dev/fuse", os.O_RDWR)
assert not mount("none", "/a", "fuse.test", 0, f"fd={fd},rootmode=40000,user_id=0,group_id=0")
def attributes(node):
    kind, size = (0o40755, 0) if node == 1 else (0o100644, 5)
    return struct.pack("=6Q10I", node, size, 1, 0, 0, 0, 0, 0, 0, kind, 1, 0, 0, 0, 4096, 0)
ANSWERS = {
    1: lambda node: struct.pack("=4Q2I", 2, 0, 0, 0, 0, 0) + attributes(2),                    # LOOKUP
    3: lambda node: struct.pack("=Q2I", 0, 0, 0) + attributes(node),                           # GETATTR
    14: lambda node: struct.pack("=Q2I", 7, 0, 0),                                             # OPEN
    15: lambda node: b"hello",                                                                 # READ
    26: lambda node: struct.pack("=4I2H2I2H8I", 7, 31, 4096, 0, 1, 1, 4096, 1, 1, 0, *[0] * 8),  # INIT
}
def serve(silent=()):
    while True:
        request = os.read(fd, 65536)
        _, operation, unique, node = struct.unpack_from("=IIQQ", request)
        if operation in silent:
            continue
        answer = ANSWERS[operation](node) if operation in ANSWERS else b""
        error = 0 if operation in ANSWERS else -38
        if operation != 2:                                                                     # FORGET
            os.write(fd, struct.pack("=IiQ", 16 + len(answer), error, unique) + answer)
"""


@needs_a_judge
def test_fusefs_opens_that_type_alone(inside: Inside) -> None:
    found = inside(EVERY_WAY, *FUSEFS)
    assert found.pop("fuse") == found.pop("fuse.x") == "EINVAL"  # there is no server
    assert found.pop("remount") == "EPERM" and found.pop("unmount") == "EINVAL"
    assert not found.pop("remount, bind")
    assert found == dict.fromkeys(found, "EPERM") | dict.fromkeys(BY_DESCRIPTOR, "ENOSYS")
    script = """
threading.Thread(target=serve, daemon=True).start()
print(json.dumps([reads("/a/file"), unmount("/a")]), flush=True)
os._exit(0)
"""
    assert inside(SERVER + script, *FUSEFS) == ["hello", ""]


def test_fusefs_takes_uids_of_ones_own(jail: Command, root: Path) -> None:
    refused = jail("-c", "name=a", f"path={root}", "persist", "ng.uids=shared", *FUSEFS)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("jail: allow.mount.fusefs: not with ng.uids=shared")


@needs_a_judge
def test_a_jail_ends_although_a_fuse_server_does_not_answer(
    jail: Command, jexec: Command, root: Path, stage: Stage
) -> None:
    """Who closes a file waits for the server, uninterruptibly, and here holds the server's end open meanwhile.

    The host does not wait for it: the kernel keeps processes of other user namespaces out (fuse_allow_current_process).
    """
    made = jail("-i", "-c", "name=a", f"path={root}", "persist", *FUSEFS)
    assert made.returncode == 0, made.stderr
    init = (stage.cgroup2 / "jailng" / made.stdout.strip() / "init/cgroup.procs").read_text().strip()
    script = """
threading.Thread(target=serve, args=((25,),), daemon=True).start()      # FLUSH
os.dup2(os.open("/a/file", os.O_RDONLY), 0)                             # closed before the server's end is
os.write(told, b".")
signal.pause()
"""
    apart = """
ready, told = os.pipe()
if os.fork():
    os._exit(os.read(ready, 1) != b".")
os.setsid()
for number in (1, 2):
    os.dup2(os.open("/dev/null", os.O_RDWR), number)
"""
    done = jexec("a", hostile.PYTHON, "-IS", "-c", PROLOGUE + apart + SERVER + script)
    try:
        os.stat(f"/proc/{init}/root/a/file")
        seen = 0
    except OSError as error:
        seen = error.errno or -1
    removed = jail("-R", "a")
    assert done.returncode == 0, done.stderr
    assert seen == errno.EACCES
    assert (removed.stderr, removed.returncode) == ("", 0)


def test_what_the_jail_was_given_is_locked(inside: Inside) -> None:
    """No mount of it can be taken away or looked under, nor loses a flag; copies of it are no weaker."""
    script = f"""
before, said = mounted(), {{}}
for target in before:
    for flags in (0, {DETACH}, {FORCE}):
        said[f"unmount {{target}}, {{flags}}"] = unmount(target, flags)
    said[f"loosen {{target}}"] = mount(None, target, None, {REMOUNT | BIND})
for source in ("/proc", "/proc/sys", "/", "/dev"):
    said[f"bind {{source}}"] = mount(source, "/a", None, {BIND})
same = mounted() == before
said["bind all"] = mount("/", "/a", None, {BIND | REC})
copies = [target for target in mounted() if target.startswith("/a/")]
loosened = [target for target in copies if not mount(None, target, None, {REMOUNT | BIND})]
taken = [target for target in copies if not unmount(target, {DETACH})]
masks = {{name: (os.stat("/proc/" + name).st_dev, reads("/proc/" + name)) for name in ("cmdline", "keys", "meminfo")}}
copied = {{name: (os.stat("/a/proc/" + name).st_dev, reads("/a/proc/" + name)) for name in masks}}
held = os.open("/a/proc", os.O_PATH)
gone = unmount("/a", {DETACH})
os.chdir(held)
left = {{name: (os.stat(name).st_dev, reads(name)) for name in masks}}
try:
    open("/proc/sys/kernel/shmmni", "w").close()
    written = True
except OSError:
    written = False
print(json.dumps([said, same, len(copies), loosened, taken, masks == copied == left, gone, written, len(before)]))
"""
    said, same, copies, loosened, taken, alike, gone, written, count = inside(script, *NULLFS)
    assert {found for word, found in said.items() if word.startswith("unmount")} == {"EINVAL"}
    assert said["bind all"] == ""
    assert {said[f"bind {source}"] for source in ("/proc", "/proc/sys", "/", "/dev")} == {"EINVAL"}
    assert same and alike and copies == count - 1 and gone == ""
    assert not written
    # What has no flag that could be lost may be asked to lose none.
    flagless = {word.split()[1] for word, found in said.items() if word.startswith("loosen") and not found}
    assert flagless <= {"/"} and not loosened and not taken


def test_mounts_are_seen_by_all_of_the_jail_and_by_nobody_else(
    jail: Command, jexec: Command, root: Path, stage: Stage
) -> None:
    before = mounts()
    binding = f'import ctypes; ctypes.CDLL(None).mount(b"/etc", b"/mnt", None, {BIND}, None)'
    script = f"exec.start={hostile.PYTHON} -IS -c '{binding}'"
    made = jail("-i", "-c", "name=a", f"path={root}", "persist", *NULLFS, script)
    assert made.returncode == 0, made.stderr
    assert mounts() == before and not list((root / "mnt").iterdir())
    init = (stage.cgroup2 / "jailng" / made.stdout.strip() / "init/cgroup.procs").read_text().strip()
    with open(f"/proc/{init}/ns/mnt") as namespace, open(f"/proc/{init}/ns/user") as users:
        owner = fcntl.ioctl(namespace, 0xB701)  # NS_GET_USERNS
        assert os.fstat(owner).st_ino == os.fstat(users.fileno()).st_ino
        os.close(owner)
    for _ in range(2):
        assert "passwd" in jexec("a", "ls", "/mnt").stdout
    assert jexec("a", "umount", "/mnt").stderr == ""
    assert jexec("a", "ls", "/mnt").stdout == ""
    assert jexec("a", "-u", "nobody", "mount", "--bind", "/etc", "/mnt").returncode != 0
    removed = jail("-r", "a")
    assert removed.returncode == 0, removed.stderr
    assert mounts() == before


def test_enforce_statfs_counts_for_those_who_enter_afterwards(jail: Command, jexec: Command, root: Path) -> None:
    def mounts_inside() -> bool:
        return jexec("a", "mount", "--bind", "/etc", "/mnt").returncode == 0

    assert jail("-c", "name=a", f"path={root}", "persist", "allow.mount", "allow.mount.nullfs").returncode == 0
    found = [mounts_inside()]
    for level in ("1", "2", "0"):
        assert jail("-m", "name=a", f"enforce_statfs={level}").stderr == ""
        found.append(mounts_inside())
    assert jail("-R", "a").returncode == 0
    assert found == [False, True, False, True]


def test_without_suser_root_mounts_nothing(inside: Inside) -> None:
    script = f"print(json.dumps([mount('/etc', '/a', None, {BIND}), unmount('/proc')]))"
    assert inside(script, *NULLFS, "allow.nosuser") == ["EPERM", "EPERM"]


def test_debians_mount_and_umount(jail: Command, root: Path) -> None:
    """They try the calls that work by descriptors first, and then those that are open."""
    script = """
mount --bind /etc /mnt && ls /mnt/passwd && mount -o remount,bind,ro /mnt && ! touch /mnt/x && umount /mnt
mount --rbind /proc /mnt && cat /mnt/1/comm && umount -l /mnt
mount -o bind,ro /usr /mnt && ! touch /mnt/x && umount /mnt
mount --make-private /mnt || echo no propagation
mount -t ramfs none /mnt || echo no ramfs
"""
    if judges_types():
        script += "mount -t tmpfs -o size=1m,mode=700 none /mnt && stat -fc %T /mnt && umount /mnt\n"
    also = ("allow.mount.tmpfs",) if judges_types() else ()
    done = jail("-c", f"path={root}", *NULLFS, *also, "command=/bin/sh", "-uc", script)
    expected = ["/mnt/passwd", "init", "no propagation", "no ramfs", *["tmpfs"][: len(also)]]
    assert done.stdout.split("\n")[:-1] == expected, done.stderr
    assert done.returncode == 0


def test_a_file_system_of_the_hosts_keeps_its_size(jail: Command, jexec: Command, root: Path, tmp_path: Path) -> None:
    """Mounted by root inside where each jail has one of its own, whose size is what a limit changes."""
    shared = tmp_path / "shared"
    shared.mkdir()
    mount("none", shared, "tmpfs", 0, "size=64m")
    try:
        (shared / "part").mkdir()
        made = jail("-c", "name=cell", f"path={root}", "persist", *NULLFS, f"mount={shared} {root}/mnt nullfs")
        assert (made.returncode, made.stderr) == (0, "")
        assert jexec("cell", "mount", "--bind", "/mnt/part", "/dev/shm").returncode == 0
        refused = jail("-m", "name=cell", "ng.limits=shmsize:deny=1M")
        assert (shared_size := os.statvfs(shared)).f_blocks * shared_size.f_frsize == 64 << 20
        why = "ng.limits: shmsize: /dev/shm in the jail is not what the host has mounted there"
        assert (refused.returncode, refused.stderr) == (1, f"jail: {why}\n")
        assert jexec("cell", "umount", "/dev/shm").returncode == 0
        changed = jail("-m", "name=cell", "ng.limits=shmsize:deny=1M")
        assert (changed.returncode, changed.stderr) == (0, "")
        assert "size=1024k" in jexec("cell", "grep", " /dev/shm ", "/proc/self/mountinfo").stdout
    finally:
        jail("-r", "cell")
        unmount(shared)


def test_the_number_of_mounts_is_limited(inside: Inside, jail: Command, root: Path) -> None:
    """fs.mount-max, of each mount namespace; the host mounts meanwhile, and all is gone with the jail."""
    script = f"""
said = ""
while not said:
    said = mount("/", "/a", None, {BIND | REC})
print(json.dumps([said, len(mounted())]))
"""
    said, count = inside(script, *NULLFS)
    assert said == "ENOSPC"
    assert count <= int(Path("/proc/sys/fs/mount-max").read_text())
