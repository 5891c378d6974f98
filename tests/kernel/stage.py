"""The stage: a host of its own for the kernel tests, made of namespaces around the test process.

On it the tests may change addresses, routes, firewall, mounts and cgroups as root of a machine would, see exactly what
a jail leaves behind, and cannot be disturbed by another test run. It has an empty network (lo is up), a /run, a
/dev/shm and a /var/log of its own, and in every cgroup hierarchy the root is a directory that only this process is in.
Whatever a bare chroot lacks (/sys, cgroups, pseudo-terminals) is mounted here, and it is no chroot any more.

``python3 -m tests.kernel.stage COMMAND...`` runs a command with that last part alone.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

MS_BIND = 0x1000
MS_REC = 0x4000
_MS_PRIVATE = 1 << 18
_MS_SHARED = 1 << 20
_MNT_DETACH = 2
# os has these, and the two calls, from Python 3.12 on.
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
# The same on every machine.
_OPEN_TREE = 428
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT = 429
_MOVE_MOUNT_F_EMPTY_PATH = 4
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_libc = ctypes.CDLL(None, use_errno=True)


class Unavailable(Exception):
    """Why there can be no stage here."""


def mount(source: str, target: str | Path, kind: str | None = None, flags: int = 0, options: str = "") -> None:
    """mount(2). Raises OSError that names the target."""
    words = (source.encode(), str(target).encode(), kind.encode() if kind else None)
    if _libc.mount(*words, flags, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(target))


def unmount(target: str | Path) -> None:
    """umount2(2) with MNT_DETACH. Raises OSError that names the target."""
    if _libc.umount2(str(target).encode(), _MNT_DETACH) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(target))


@contextmanager
def own_logs(options: str = "") -> Iterator[Path]:
    """A /var/log of the test's own, mounted with these options; the directory in it of what is kept of jails."""
    mount("none", "/var/log", "tmpfs", 0, options)
    try:
        yield Path("/var/log/jailng")
    finally:
        unmount("/var/log")


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError."""
    if _libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def setns(fd: int, flags: int) -> None:
    """setns(2). Raises OSError."""
    if _libc.setns(fd, flags) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@dataclass(frozen=True)
class Mount:
    """A line of /proc/self/mountinfo: proc_pid_mountinfo(5)."""

    root: str
    target: str
    kind: str
    source: str
    options: str


def mounts() -> list[Mount]:
    """What is mounted in this process's namespace, in the order in which it was."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, after = (part.split() for part in line.split(" - "))
        found.append(Mount(before[3], before[4], after[0], after[1], after[2]))
    return found


def _forget_the_dead() -> None:
    """Take away the proxies of a network that is gone.

    The kernel keeps those that are of no link when their network ends, and gives them to one that is made where it was.
    """
    shown = subprocess.run(["ip", "-4", "neighbour", "show", "proxy"], stdout=subprocess.PIPE, text=True, check=True)
    for line in shown.stdout.splitlines():
        subprocess.run(["ip", "neighbour", "del", "proxy", line.split()[0]], check=True)


@dataclass(frozen=True)
class Hierarchy:
    """A mounted cgroup hierarchy, before the stage: where this process was in it, and how to get back there."""

    mounted: Mount
    directory: int
    home: int

    @property
    def mount_options(self) -> str:
        """What makes mount(8) mount the same hierarchy again."""
        known = [word for word in self.mounted.options.split(",") if word not in ("rw", "ro", "xattr")]
        known = [word for word in known if not word.startswith("release_agent=")]
        if self.mounted.kind == "cgroup2":
            return ""
        return ",".join(["none", *known] if any(word.startswith("name=") for word in known) else known)


class Stage:
    """The stage that this process is on."""

    def __init__(self) -> None:
        # A pid tells nothing outside of its namespace.
        self.name = f"jailng-stage-{os.stat('/proc/self/ns/pid').st_ino}-{os.getpid()}"
        self.hierarchies: list[Hierarchy] = []
        self.host_net = -1

    @classmethod
    def enter(cls) -> Stage:
        """Put this process, which must have a single thread, on a stage of its own for the rest of its life.

        Raises Unavailable where it may not.
        """
        private_mounts()
        stage = cls()
        stage.host_net = os.open("/proc/self/ns/net", os.O_RDONLY)
        try:
            stage._move_into_cgroups()
            unshare(CLONE_NEWCGROUP | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC)
        except OSError as error:
            stage.leave()
            what = error.filename or "namespaces"
            raise Unavailable(f"this root may not make {what} ({error.strerror})") from None
        for hierarchy in stage.hierarchies:
            unmount(hierarchy.mounted.target)
            mount("none", hierarchy.mounted.target, hierarchy.mounted.kind, 0, hierarchy.mount_options)
        stage._empty_root()
        _furnish_run()
        mount("none", "/dev/shm", "tmpfs", 0, "mode=1777")
        Path("/var/log").mkdir(exist_ok=True)
        mount("none", "/var/log", "tmpfs")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        # The kernel gives a new namespace what the machine's own has, which may be a router of containers by now.
        Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
        _forget_the_dead()
        return stage

    def _empty_root(self) -> None:
        """A machine's root of cgroup v2 hands controllers down whoever is in it; any other must have no process."""
        leaf = self.cgroup2 / "stage"
        leaf.mkdir()
        (leaf / "cgroup.procs").write_text("0")

    @property
    def cgroup2(self) -> Path:
        """The root of the cgroup2 hierarchy."""
        return Path(next(h.mounted.target for h in self.hierarchies if h.mounted.kind == "cgroup2"))

    def processes(self) -> dict[int, str]:
        """Everything that was started on the stage and still lives: pid to name. Zombies do not count."""
        found = {}
        for procs in self.cgroup2.glob("**/cgroup.procs"):
            with suppress(OSError):
                for pid in map(int, procs.read_text().split()):
                    with suppress(OSError):
                        found[pid] = Path(f"/proc/{pid}/comm").read_text().strip()
        return found

    def onto_host_network(self) -> None:
        """For subprocess's ``preexec_fn``: give the command the network that the machine has."""
        setns(self.host_net, CLONE_NEWNET)

    def clear(self, keep: set[int]) -> None:
        """Kill everything that was started on the stage except these pids and this process."""
        for pid in self.processes().keys() - keep - {os.getpid()}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def leave(self) -> None:
        """Kill what is left on the stage, go back to this process's cgroups, and remove the stage's own."""
        if any(hierarchy.mounted.kind == "cgroup2" for hierarchy in self.hierarchies):
            self.clear(keep=set())
        for hierarchy in self.hierarchies:
            os.write(hierarchy.home, b"0")
            _remove_tree(hierarchy.directory, self.name)

    def _move_into_cgroups(self) -> None:
        found: dict[int, Mount] = {}
        for mounted in mounts():
            if mounted.kind in ("cgroup", "cgroup2"):
                found.setdefault(os.stat(mounted.target).st_dev, mounted)
        # cgroup2 first: only there can what a dead stage has left be killed, which then leaves the others too.
        for mounted in sorted(found.values(), key=lambda mounted: mounted.kind, reverse=True):
            self._remove_dead_stages(Path(mounted.target))
            self.hierarchies.append(self._move_into(mounted))

    def _remove_dead_stages(self, top: Path) -> None:
        for old in top.glob(f"{self.name.rpartition('-')[0]}-*"):
            if os.path.exists(f"/proc/{old.name.rpartition('-')[2]}"):
                continue
            with suppress(OSError):
                (old / "cgroup.kill").write_text("1")
            directory = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
            _remove_tree(directory, old.name)
            os.close(directory)

    def _move_into(self, mounted: Mount) -> Hierarchy:
        top = Path(mounted.target)
        where = _own_cgroup(mounted)
        # A path relative to the hierarchy's root is below the mount only where the mount shows the root.
        home = top / os.path.relpath(where, mounted.root) if where.startswith(mounted.root) else top
        stage = top / self.name
        stage.mkdir()
        if mounted.kind == "cgroup2":
            for name in (top / "cgroup.controllers").read_text().split():
                with suppress(OSError):  # a container's root, with processes of its own
                    (top / "cgroup.subtree_control").write_text(f"+{name}")
        for name in ("cpuset.cpus", "cpuset.mems"):  # a v1 cpuset without them takes no process
            if mounted.kind == "cgroup" and (top / name).exists():
                (stage / name).write_text((top / name).read_text())
        directory = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
        back = os.open(home / "cgroup.procs", os.O_WRONLY)
        (stage / "cgroup.procs").write_text("0")
        return Hierarchy(mounted, directory, back)


def private_mounts() -> None:
    """Give this process a mount namespace of its own, cut off from the host's, with what a bare chroot lacks in it.

    Raises Unavailable where it may not have one.
    """
    if os.geteuid() != 0:
        raise Unavailable("they need root")
    if not os.path.exists("/proc/self/ns/mnt"):
        raise Unavailable("they need a /proc: mount -t proc proc /proc")
    try:
        unshare(CLONE_NEWNS)
    except OSError as error:
        raise Unavailable(f"this root may not make a mount namespace ({error.strerror}): CAP_SYS_ADMIN") from None
    _make_all_private()
    _mount_what_is_missing()


def _make_all_private() -> None:
    """Cut the mounts off from the host's; and make the root of a chroot the root of the mount namespace.

    In a chroot the kernel makes no user namespace for anybody (create_user_ns, EPERM).
    """
    here = os.getcwd()
    tree = _system_call(_OPEN_TREE, _AT_FDCWD, b"/", _OPEN_TREE_CLONE | _AT_RECURSIVE)
    before = _mount_of_root()
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    setns(own, CLONE_NEWNS)  # leads to the namespace's own root
    os.close(own)
    mount("none", "/", None, MS_REC | _MS_PRIVATE)
    if _mount_of_root() != before:
        _system_call(_MOVE_MOUNT, tree, b"", _AT_FDCWD, b"/", _MOVE_MOUNT_F_EMPTY_PATH)
        os.fchdir(tree)
        os.chroot(".")
        mount("none", "/", None, MS_REC | _MS_PRIVATE)
    os.close(tree)
    os.chdir(here)


def _mount_of_root() -> tuple[str, int]:
    fd = os.open("/", os.O_PATH)
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    found = next(line for line in lines if line.startswith("mnt_id:")), os.fstat(fd).st_ino
    os.close(fd)
    return found


def _system_call(number: int, *arguments: int | bytes) -> int:
    result = _libc.syscall(number, *[ctypes.c_long(word) if isinstance(word, int) else word for word in arguments])
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(result)


def _mount_what_is_missing() -> None:
    present = mounts()
    kinds = {found.kind for found in present}
    if not os.path.isdir("/sys/fs"):
        mount("sysfs", "/sys", "sysfs")
    if not kinds & {"cgroup", "cgroup2"} and (hierarchies := _hierarchies()):
        mount("none", "/sys/fs/cgroup", "tmpfs", 0, "mode=755")
        for names in hierarchies:
            place = Path("/sys/fs/cgroup", ",".join(names))
            place.mkdir()
            mount("none", place, "cgroup", 0, ",".join(names))
            for name in names if len(names) > 1 else ():
                (place.parent / name).symlink_to(place.name)
        kinds.add("cgroup")
    if "cgroup2" not in kinds:
        target = Path("/sys/fs/cgroup/unified" if "cgroup" in kinds else "/sys/fs/cgroup")
        target.mkdir(exist_ok=True)
        mount("cgroup2", target, "cgroup2")
    for target_name, kind, options in (
        ("/dev/pts", "devpts", "ptmxmode=666,mode=620"),
        ("/dev/shm", "tmpfs", "mode=1777"),
    ):
        if not any(found.target == target_name for found in present):
            Path(target_name).mkdir(exist_ok=True)
            mount("none", target_name, kind, 0, options)


def _hierarchies() -> list[list[str]]:
    """The controllers of each hierarchy of v1 that the kernel has: cgroups(7), /proc/cgroups."""
    found: dict[str, list[str]] = {}
    for line in Path("/proc/cgroups").read_text().splitlines()[1:]:
        name, hierarchy, _, _ = line.split()
        if hierarchy != "0":
            found.setdefault(hierarchy, []).append(name)
    return list(found.values())


def _furnish_run() -> None:
    """A /run of our own in which everything is as it was but what jailng and ip-netns(8) keep there."""
    old = os.open("/run", os.O_PATH)
    mount("none", "/run", "tmpfs", 0, "mode=755")
    for entry in os.scandir(f"/proc/self/fd/{old}"):
        here = Path("/run", entry.name)
        if entry.is_symlink():
            here.symlink_to(os.readlink(entry.path))
        elif entry.is_dir() and entry.name not in ("jailng", "netns"):
            here.mkdir()
            mount(entry.path, here, None, MS_BIND | MS_REC)
    os.close(old)
    # As ip-netns(8) leaves it after its first use.
    Path("/run/netns").mkdir()
    mount("/run/netns", "/run/netns", None, MS_BIND | MS_REC)
    mount("none", "/run/netns", None, _MS_SHARED | MS_REC)


def _own_cgroup(mounted: Mount) -> str:
    """The path of this process's cgroup in the hierarchy that is mounted there: cgroups(7), /proc/pid/cgroup."""
    options = set(mounted.options.split(","))
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if (number == "0") if mounted.kind == "cgroup2" else (set(controllers.split(",")) <= options):
            return path
    return mounted.root


def _remove_tree(directory: int, name: str, wait: float = 5.0) -> None:
    """Remove a cgroup and all below it; one whose processes do not end in time stays."""
    until = time.monotonic() + wait
    try:
        names = [path for path, _, _, _ in os.fwalk(name, topdown=False, dir_fd=directory)]
    except FileNotFoundError:  # another process of the same run has come upon it as well
        return
    for path in names:
        while True:
            try:
                os.rmdir(path, dir_fd=directory)
                break
            except FileNotFoundError:
                break
            except OSError:
                if time.monotonic() > until:
                    break
                time.sleep(0.005)


if __name__ == "__main__":
    with suppress(Unavailable):  # then the command has to do with what there is
        private_mounts()
    os.execvp(sys.argv[1], sys.argv[1:])
