"""Whether the kernel has what confines a jail, and what single parameters take: each is tried, by a child process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from jailng.core import privileges, timeslice
from jailng.ctl.diagnosis import Finding, Jails
from jailng.errors import JailError
from jailng.linux import bpf, btf, caps, cgroup, landlock, lsm, mount, mountfd, ns, ringbuffer, tracing
from jailng.linux.libc import ENOSYS, syscall, words

_LANDLOCK_SCOPES = 6  # the ABI that has them, Linux 6.12
_GET_ACTION_AVAIL = 2
_RET_ERRNO, _RET_USER_NOTIF = 0x00050000, 0x7FC00000
# What every jail takes of the calls that libc.NR knows: a call that fails otherwise than by ENOSYS is there.
_CALLS = "openat2 open_tree move_mount fsopen fsmount mount_setattr pidfd_open clone3 close_range".split()
_NAMESPACES = [
    ("mount namespaces", ns.CLONE_NEWNS, "sysctl user.max_mnt_namespaces above 0"),
    ("PID namespaces", ns.CLONE_NEWPID, "CONFIG_PID_NS"),
    ("IPC namespaces", ns.CLONE_NEWIPC, "CONFIG_IPC_NS"),
    ("UTS namespaces", ns.CLONE_NEWUTS, "CONFIG_UTS_NS"),
    ("cgroup namespaces", ns.CLONE_NEWCGROUP, "CONFIG_CGROUPS, and sysctl user.max_cgroup_namespaces above 0"),
    ("network namespaces", ns.CLONE_NEWNET, "CONFIG_NET_NS"),
    ("time namespaces", ns.CLONE_NEWTIME, "CONFIG_TIME_NS"),
]


def _action(action: int) -> None:
    syscall("seccomp", _GET_ACTION_AVAIL, 0, words(action, size=4))


def _calls() -> None:
    for name in _CALLS:
        try:
            # No descriptor, no memory: whatever it is asked, it is not done.
            syscall(name, 2**32 - 1, 0, 0, 0, 0)
        except OSError as error:
            if error.errno == ENOSYS:
                raise


def _cgroup_kill() -> None:
    name = f"jailng-doctor-{os.getpid()}"
    root = cgroup.unified_root()
    os.mkdir(name, dir_fd=root)
    try:
        os.stat(f"{name}/cgroup.kill", dir_fd=root)
    finally:
        os.rmdir(name, dir_fd=root)


def _user_namespace() -> None:
    """As a jail's: joining one's own mount namespace leads out of a chroot, in which none can be made (EPERM)."""
    here = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    ns.setns(here, ns.CLONE_NEWNS)
    ns.unshare(ns.CLONE_NEWUSER)


def _idmapped() -> None:
    """What a namespace maps is of no matter here, only that a mount can be given it."""
    ready, tell = os.pipe()
    stop, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go)
        try:
            _user_namespace()
            os.write(tell, b"1")
            os.read(stop, 1)
        finally:
            os._exit(0)
    os.close(tell)
    os.close(stop)
    try:
        if not os.read(ready, 1):
            raise OSError(ENOSYS, "no user namespace")
        for kind in ("uid", "gid"):
            with open(f"/proc/{pid}/{kind}_map", "w") as file:
                file.write("0 1879048192 65536")
        userns = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
        tree = mountfd.new_file_system(b"tmpfs", [])
        attr = words(mount.MOUNT_ATTR_IDMAP, 0, 0, userns)
        syscall("mount_setattr", tree, b"", mount.AT_EMPTY_PATH, attr, len(attr))
    finally:
        os.close(go)
        os.waitpid(pid, 0)


def _landlock() -> None:
    version = syscall("landlock_create_ruleset", 0, 0, 1)
    if version < _LANDLOCK_SCOPES:
        raise OSError(ENOSYS, f"its interface is of version {version}")
    syscall("landlock_create_ruleset", words(0, 0, landlock.SCOPE_ABSTRACT_UNIX_SOCKET), 24, 0)


def _mount_types() -> None:
    os.close(lsm.load([b"tmpfs"]))


def _sock_addr() -> None:
    code = bpf.mov(bpf.R0, 1) + bpf.leave()
    os.close(bpf.load(bpf.PROG_TYPE_CGROUP_SOCK_ADDR, bpf.CGROUP_INET4_BIND, code))


def _devices() -> None:
    code = bpf.mov(bpf.R0, 1) + bpf.leave()
    os.close(bpf.load(bpf.PROG_TYPE_CGROUP_DEVICE, bpf.CGROUP_DEVICE, code))


def _looks_on() -> None:
    btf.Types()
    ringbuffer.create(ringbuffer.page_size()).close()
    code = bpf.mov(bpf.R0, 0) + bpf.leave()
    os.close(bpf.load(tracing.PROG_TYPE_RAW_TRACEPOINT, 0, code))


# What is tried, what the kernel needs for it, and what cannot be had without; "" is no jail at all.
_Row = tuple[str, str, str, Callable[[], object]]
_ROWS: list[_Row] = [
    ("what /sys tells of the machine", "CONFIG_SYSFS, mounted at /sys", "", lambda: os.stat("/sys/devices/system/cpu")),
    ("user namespaces", "CONFIG_USER_NS, and sysctl user.max_user_namespaces above 0", "", _user_namespace),
    *[(name, needed, "", lambda flag=flag: ns.unshare(flag)) for name, flag, needed in _NAMESPACES],
    ("seccomp filters", "CONFIG_SECCOMP_FILTER", "", lambda: _action(_RET_ERRNO)),
    ("mounts and processes by descriptor", "Linux 5.12", "", _calls),
    ("cgroup2 with cgroup.kill", "CONFIG_CGROUPS, Linux 5.14", "", _cgroup_kill),
    ("programs on a cgroup that judge devices", "CONFIG_CGROUP_BPF", "", _devices),
    ("idmapped mounts of tmpfs", "Linux 6.3", "ng.uids=private", _idmapped),
    (
        "scopes of Landlock", 'CONFIG_SECURITY_LANDLOCK, Linux 6.12, "landlock" in lsm= of the kernel\'s command line',
        "ip4=inherit, ip6=inherit, and one address for two jails", _landlock,
    ),
    (
        "programs that judge mounts", 'CONFIG_BPF_LSM, Linux 6.8, "bpf" in lsm= of the kernel\'s command line',
        "allow.mount.tmpfs and allow.mount.fusefs", _mount_types,
    ),
    ("slices of a process's own", "Linux 6.12", "ng.slice", timeslice.must_be_known),
    ("seccomp filters that ask a process", "CONFIG_SECCOMP_FILTER, Linux 5.9", "ng.stack=shared",
     lambda: _action(_RET_USER_NOTIF)),
    ("programs on a cgroup's sockets", "CONFIG_CGROUP_BPF", "ng.stack=shared, and ports below 1024 with ip4=inherit",
     _sock_addr),
    ("programs that look on at system calls", "CONFIG_BPF_SYSCALL, CONFIG_DEBUG_INFO_BTF, Linux 5.8",
     "ng.watch=tty, jailctl watch, and ng.log=exec, connections or logins", _looks_on),
]  # fmt: skip


def check(_: Jails) -> Iterator[Finding]:
    """What this kernel lacks: wrong where it is needed by every jail, else worth knowing."""
    lacking = caps.lacking(privileges.OF_ROOT)
    if lacking:  # what is tried would fail for that, whatever the kernel has
        yield Finding(f"root has no {', '.join(lacking)} here, as in a container: no jail can be made")
        return
    for what, needed, parameters, attempt in _ROWS:
        why = _tried(attempt)
        if why and parameters:
            yield Finding(f"{what}: {why}: refused is {parameters}; the kernel needs {needed}", wrong=False)
        elif why:
            yield Finding(f"{what}: {why}: the kernel needs {needed}")


def _tried(attempt: Callable[[], object]) -> str:
    """Why it fails, or "": by a child, since what succeeds cannot be taken back."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            attempt()
        except OSError as error:
            os.write(tell, f"{error.strerror}".encode())
        except JailError as error:
            os.write(tell, str(error).encode())
        finally:
            os._exit(0)
    os.close(tell)
    with os.fdopen(told) as answer:
        why = answer.read()
    os.waitpid(pid, 0)
    return why
