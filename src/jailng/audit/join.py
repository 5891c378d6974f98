"""Becoming one of the processes of a container that somebody else runs, as far as that goes from outside.

A program of its own, which ``jailctl audit --pid`` runs: it takes on the cgroups, namespaces, root directory, security
label, ids, capabilities and seccomp filters of a process, and executes a command. What it cannot take on is an error.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
from pathlib import Path

from jailng.audit.probe import call

_NAMESPACES = {
    "cgroup": 0x2000000,
    "ipc": 0x8000000,
    "mnt": 0x20000,
    "net": 0x40000000,
    "pid": 0x20000000,
    "time": 0x80,
    "user": 0x10000000,
    "uts": 0x4000000,
}
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_CAPBSET_DROP = 1, 4, 8, 24
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 38, 47, 2
_PTRACE_SEIZE, _PTRACE_INTERRUPT, _PTRACE_DETACH = 0x4206, 0x4207, 17
_PTRACE_SECCOMP_GET_FILTER = 0x420C
_WALL = 0x40000000
_LAST_CAPABILITY = 40


class Target:
    """A process as /proc tells of it: everything is read before anything is taken on."""

    def __init__(self, pid: int) -> None:
        """Raises OSError."""
        self.pidfd = os.pidfd_open(pid)
        self.directory = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY)
        self.root = self._open("root")
        status = dict(line.split(":\t", 1) for line in self._read("status").split("\n") if ":\t" in line)
        self.uid, self.gid = int(status["Uid"].split()[1]), int(status["Gid"].split()[1])
        self.groups = [int(word) for word in status["Groups"].split()]
        self.capabilities = {name: int(status[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")}
        self.no_new_privileges = status.get("NoNewPrivs", "0").strip() == "1"
        self.cgroups = [line.split(":", 2)[1:] for line in self._read("cgroup").splitlines()]
        self.label = self._label()
        maps = {name: self._read(f"{name}_map") for name in ("uid", "gid")}
        self.uid = _inside(self.uid, maps["uid"])
        self.gid = _inside(self.gid, maps["gid"])
        self.groups = [_inside(group, maps["gid"]) for group in self.groups]
        self.flags = 0
        for name, flag in _NAMESPACES.items():
            if os.readlink(f"ns/{name}", dir_fd=self.directory) != os.readlink(f"/proc/self/ns/{name}"):
                self.flags |= flag
        self.filters = _filters(pid) if status.get("Seccomp", "0").strip() == "2" else []

    def _open(self, name: str) -> int:
        return os.open(name, os.O_PATH, dir_fd=self.directory)

    def _read(self, name: str) -> str:
        with open(os.open(name, os.O_RDONLY, dir_fd=self.directory), "rb") as file:
            return file.read().decode(errors="surrogateescape")

    def _label(self) -> str:
        """What the security module calls it, if that confines it."""
        try:
            label = self._read("attr/current").strip("\0\n ")
        except OSError:
            return ""
        return "" if label in ("", "unconfined", "kernel") else label.partition(" (")[0]


def _inside(number: int, lines: str) -> int:
    """An id of the host's as the user namespace with that map has it. Raises ValueError."""
    for line in lines.splitlines():
        first, outside, count = map(int, line.split())
        if outside <= number < outside + count:
            return first + number - outside
    raise ValueError(f"id {number} is none in its user namespace")


def _filters(pid: int) -> list[bytes]:
    """Its seccomp programs, the oldest first: PTRACE_SECCOMP_GET_FILTER, which needs it to stop for a moment.

    Raises OSError: EACCES where this process has a filter itself, EIO without CONFIG_CHECKPOINT_RESTORE.
    """
    call("ptrace", _PTRACE_SEIZE, pid, 0, 0)
    try:
        call("ptrace", _PTRACE_INTERRUPT, pid, 0, 0)
        os.waitpid(pid, _WALL)
        found: list[bytes] = []
        while True:
            try:
                count = call("ptrace", _PTRACE_SECCOMP_GET_FILTER, pid, len(found), None)
            except OSError as error:
                if error.errno == 2 and found:
                    return found[::-1]
                raise
            memory = ctypes.create_string_buffer(count * 8)
            call("ptrace", _PTRACE_SECCOMP_GET_FILTER, pid, len(found), memory)
            found.append(memory.raw)
    finally:
        call("ptrace", _PTRACE_DETACH, pid, 0, 0)


def _join_cgroups(cgroups: list[list[str]]) -> None:
    lines = Path("/proc/self/mountinfo").read_bytes().decode(errors="surrogateescape")
    mounts = [line.split(" - ") for line in lines.split("\n")[:-1]]
    for names, path in cgroups:
        for before, after in mounts:
            kind, _, options = after.split(" ", 2)
            here = (
                kind == "cgroup2"
                if not names
                else kind == "cgroup" and set(names.split(",")) <= set(options.split(","))
            )
            if here:
                Path(before.split()[4] + path, "cgroup.procs").write_text("0")
                break


def _confine(target: Target) -> None:
    """In the namespaces already: everything that makes less of it, and the filters before what they may forbid."""
    if target.groups != os.getgroups():  # which a user namespace may not let be changed
        os.setgroups(target.groups)
    os.setresgid(target.gid, target.gid, target.gid)
    call("prctl", _PR_SET_KEEPCAPS, 1, 0, 0, 0)
    for number in range(_LAST_CAPABILITY + 1):
        if not target.capabilities["Bnd"] >> number & 1:
            call("prctl", _PR_CAPBSET_DROP, number, 0, 0, 0)
    os.setresuid(target.uid, target.uid, target.uid)
    if target.no_new_privileges:
        call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _set_capabilities(target, target.capabilities["Prm"] | 1 << 21 if target.filters else target.capabilities["Prm"])
    for program in target.filters:
        memory = ctypes.create_string_buffer(program, len(program))
        given = struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(memory))
        call("seccomp", 1, 0, given)
    _set_capabilities(target, target.capabilities["Prm"])


def _set_capabilities(target: Target, permitted: int) -> None:
    inheritable, ambient = target.capabilities["Inh"], target.capabilities["Amb"]
    header = struct.pack("=Ii", 0x20080522, 0)
    words = [permitted, permitted, inheritable]
    data = struct.pack("=6I", *[word & 0xFFFFFFFF for word in words], *[word >> 32 for word in words])
    call("capset", header, data)
    for number in range(_LAST_CAPABILITY + 1):
        if ambient >> number & 1:
            call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number, 0, 0)


def main(argv: list[str]) -> None:
    """``PID command [argument ...]``: become like it, and execute."""
    try:
        target = Target(int(argv[0]))
        _join_cgroups(target.cgroups)
        if target.label:
            Path("/proc/thread-self/attr/exec").write_text(f"exec {target.label}")
        call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)
        if target.flags:
            call("setns", target.pidfd, target.flags)
        if not os.path.samestat(os.stat("/"), os.fstat(target.root)):  # chroot(2) to what is the root is one, too
            os.fchdir(target.root)
            os.chroot(".")
        os.chdir("/")
        child = os.fork()
        if child:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            sys.exit(abs(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
        call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.closerange(3, 1 << 16)
        _confine(target)
        os.execve(argv[1], argv[1:], {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    except (OSError, ValueError) as error:
        print(f"pid {argv[0]}: {getattr(error, 'strerror', None) or error}", flush=True)
        os._exit(1)
