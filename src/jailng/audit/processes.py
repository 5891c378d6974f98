"""Other processes: those of the host, of another jail, and PID 1."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import struct
from functools import partial

from .probe import ESCAPED, EXPOSED, HELD, Facts, Verdict, call, found, probe, tried, why

_PTRACE_ATTACH, _PTRACE_DETACH, _PTRACE_SEIZE = 16, 17, 0x4206
_CLONE_PARENT = 0x8000


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _victims(facts: Facts) -> list[int]:
    """Every process that is not of this jail: by its command line, or by the number that the host gave it."""
    seen = []
    for pid in _pids():
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if facts["victim"].encode() in file.read():
                    seen.append(pid)
        except OSError:
            continue
    return seen or [int(number) for number in facts["pids"].split() if int(number) not in _pids()]


def _each(action: partial[object] | object, facts: Facts) -> Verdict:
    refused = "nobody there"
    for pid in _victims(facts):
        assert callable(action)
        verdict = tried(partial(action, pid))
        if verdict[0] != HELD:
            return verdict
        refused = verdict[1]
    return HELD, refused


@probe("processes: see those of others in /proc")
def _see(facts: Facts) -> Verdict:
    for pid in _pids():
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if facts["victim"].encode() in file.read():
                    return ESCAPED, f"/proc/{pid}"
        except OSError:
            continue
    return HELD, f"{len(_pids())} processes, all our own"


@probe("processes: the host's pid in /proc")
def _by_number(facts: Facts) -> Verdict:
    return found([number for number in facts["pids"].split() if _is_victim(number, facts)], ESCAPED)


def _is_victim(number: str, facts: Facts) -> bool:
    try:
        with open(f"/proc/{number}/cmdline", "rb") as file:
            return facts["victim"].encode() in file.read()
    except OSError:
        return False


def _trace(request: int, pid: int) -> str:
    call("ptrace", request, pid, 0, 0)
    os.waitpid(pid, os.WUNTRACED) if request == _PTRACE_ATTACH else None
    if request == _PTRACE_ATTACH:
        call("ptrace", _PTRACE_DETACH, pid, 0, 0)
    return "traced"


def _copy(number: str, pid: int) -> int:
    memory = ctypes.create_string_buffer(16)
    here, there = struct.pack("=QQ", ctypes.addressof(memory), 1), struct.pack("=QQ", 0, 1)
    try:
        return call(number, pid, here, 1, there, 1, 0)
    except OSError as error:
        if error.errno != errno.EFAULT:
            raise
        return 0  # there is nothing at address 0, but it was allowed to look


def _get_descriptor(pid: int) -> int:
    return call("pidfd_getfd", os.pidfd_open(pid), 0, 0)


def _open_file(name: str, mode: int, pid: int) -> int:
    return os.open(f"/proc/{pid}/{name}", mode)


_ACTIONS: dict[str, object] = {
    "signal (kill)": lambda pid: os.kill(pid, 0),
    "signal (pidfd)": lambda pid: signal.pidfd_send_signal(os.pidfd_open(pid), 0),
    "signal (tgkill)": lambda pid: call("tgkill", pid, pid, 0),
    "signal (tkill)": lambda pid: call("tkill", pid, 0),
    "signal (its process group)": lambda pid: os.killpg(pid, 0),
    "PTRACE_ATTACH": partial(_trace, _PTRACE_ATTACH),
    "PTRACE_SEIZE": partial(_trace, _PTRACE_SEIZE),
    "process_vm_readv": partial(_copy, "process_vm_readv"),
    "process_vm_writev": partial(_copy, "process_vm_writev"),
    "pidfd_open": os.pidfd_open,
    "pidfd_getfd": _get_descriptor,
    "kcmp": lambda pid: call("kcmp", os.getpid(), pid, 0, 0, 0),
    "prlimit": lambda pid: resource.prlimit(pid, resource.RLIMIT_NOFILE),
    "scheduler": os.sched_getscheduler,
    "affinity": os.sched_getaffinity,
    "priority": lambda pid: os.getpriority(os.PRIO_PROCESS, pid),
    "process group": os.getpgid,
    "session": os.getsid,
    "migrate_pages": lambda pid: call("migrate_pages", pid, 9, b"\x01" + bytes(7), b"\x01" + bytes(7)),
    "memory": partial(_open_file, "mem", os.O_RDONLY),
    "environment": partial(_open_file, "environ", os.O_RDONLY),
    "maps": partial(_open_file, "maps", os.O_RDONLY),
    "root": partial(_open_file, "root", os.O_PATH),
    "current directory": partial(_open_file, "cwd", os.O_PATH),
    "program": partial(_open_file, "exe", os.O_RDONLY),
    "descriptors": lambda pid: os.listdir(f"/proc/{pid}/fd"),
    "namespaces": partial(_open_file, "ns/mnt", os.O_RDONLY),
    "out of memory score": partial(_open_file, "oom_score_adj", os.O_WRONLY),
    "mounts": partial(_open_file, "mountinfo", os.O_RDONLY),
}

for _name, _action in _ACTIONS.items():
    probe(f"processes: others, {_name}", light=not _name.startswith("PTRACE"))(partial(_each, _action))


@probe("processes: signal everybody")
def _everybody(facts: Facts) -> Verdict:
    """Signal 0: the kernel counts whom it could reach. PID 1 and the caller are not among them."""
    return found([pid for pid in _victims(facts) if _reaches(pid)], ESCAPED)


def _reaches(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


@probe("processes: a child for whoever has started the caller (CLONE_PARENT)", light=True)
def _sibling(facts: Facts) -> Verdict:
    """Which is a process of the host's, where the caller is the one that has entered."""
    here = os.getpid()

    def make() -> None:
        call("clone", _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
        if os.getpid() != here:
            os._exit(0)

    return tried(make, EXPOSED)


@probe("processes: signal by way of a file's owner (F_SETOWN)")
def _set_owner(facts: Facts) -> Verdict:
    import fcntl

    reading, _ = os.pipe()
    return _each(lambda pid: fcntl.fcntl(reading, fcntl.F_SETOWN, pid), facts)


# What PID 1 keeps to itself, since its memory and its descriptors were made by the host.
_OF_INIT = {
    "mem": os.O_RDONLY,
    "environ": os.O_RDONLY,
    "auxv": os.O_RDONLY,
    "fd": os.O_RDONLY,
    "fdinfo": os.O_RDONLY,
    "map_files": os.O_RDONLY,
    "maps": os.O_RDONLY,
    "smaps": os.O_RDONLY,
    "pagemap": os.O_RDONLY,
    "exe": os.O_RDONLY,
    "root": os.O_PATH,
    "cwd": os.O_PATH,
    "stack": os.O_RDONLY,
    "syscall": os.O_RDONLY,
    "io": os.O_RDONLY,
    "personality": os.O_RDONLY,
    "ns/mnt": os.O_RDONLY,
    "ns/user": os.O_RDONLY,
    "ns/cgroup": os.O_RDONLY,
    "uid_map": os.O_WRONLY,
    "oom_score_adj": os.O_WRONLY,
    "clear_refs": os.O_WRONLY,
}


def _init(name: str, mode: int, facts: Facts) -> Verdict:
    return tried(lambda: os.open(f"/proc/{facts['init']}/{name}", mode), EXPOSED)


for _name, _mode in _OF_INIT.items():
    probe(f"processes: PID 1, {_name}", light=True)(partial(_init, _name, _mode))


def _init_does(action: object, facts: Facts) -> Verdict:
    assert callable(action)
    return tried(lambda: action(int(facts["init"])), EXPOSED)


for _name in ("PTRACE_SEIZE", "process_vm_readv", "process_vm_writev", "pidfd_getfd"):
    probe(f"processes: PID 1, {_name}")(partial(_init_does, _ACTIONS[_name]))


@probe("processes: the program of PID 1 is written to")
def _write_init(facts: Facts) -> Verdict:
    """If it is the host's, which a path of its own does not lead to."""
    try:
        there = os.stat(f"/proc/{facts['init']}/exe")
        path = os.readlink(f"/proc/{facts['init']}/exe")
        if os.path.exists(path) and os.path.samestat(os.stat(path), there):
            return HELD, "it is the container's own"
        os.close(os.open(f"/proc/{facts['init']}/exe", os.O_WRONLY))
    except OSError as error:
        if error.errno != errno.ETXTBSY:
            return HELD, why(error)
        # A running program is busy, but would not be at the next try (CVE-2019-5736): only a read-only mount helps.
        flags = os.fstatvfs(os.open(f"/proc/{facts['init']}/exe", os.O_PATH)).f_flag
        return (HELD, "on a read-only mount") if flags & os.ST_RDONLY else (ESCAPED, why(error))
    return ESCAPED, "it opens for writing"
