"""Attack whatever enters the jail, between its birth and its exec.

``python3 -m probes.entering ANGLE INODE`` guesses the next pid and reaches for it, over and over, until standard input
ends. It prints what it gained, a line each, and as its last line how often it met somebody: [met, refused]. INODE is
that of /proc/net/dev of the host's network. A command that has been executed is a process of the jail's like any other,
and to open that is no gain.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from collections.abc import Callable

from jailng.audit.probe import call

_PTRACE, _PIDFD_GETFD, _PROCESS_VM_READV = 101, 438, 310
_SEIZE, _DETACH = 0x4206, 17
_BEYOND_STREAMS = range(3, 24)
_root, _proc = os.stat("/"), os.stat("/proc")


def _mount_points(pid: int | str) -> set[str]:
    with open(f"/proc/{pid}/mountinfo") as file:
        return {line.split()[4] for line in file}


_points = _mount_points("self")


def _is_foreign(link: str) -> bool:
    """Whether what a descriptor leads to is no file of the jail's, pipe or terminal."""
    if link.startswith(("pipe:", "/dev/", "/proc/")):
        return False
    try:
        return os.stat(link).st_dev != _root.st_dev
    except OSError:
        return True


class Attacker:
    """One angle of attack on one pid after another."""

    def __init__(self, angle: str, network_of_host: int) -> None:
        self.gained: dict[str, int] = {}
        self.network_of_host = network_of_host
        self.met = self.refused = 0
        self.reach: Callable[[int], None] = getattr(self, angle)

    def gain(self, what: str) -> None:
        self.gained[what] = self.gained.get(what, 0) + 1

    def descriptors(self, pid: int) -> None:
        """/proc/PID/fd, of which nothing keeps the state between two programs from being seen."""
        process = os.open(f"/proc/{pid}", os.O_PATH)
        try:
            for number in _BEYOND_STREAMS:
                try:
                    fd = os.open(f"fd/{number}", os.O_PATH, dir_fd=process)
                except FileNotFoundError:
                    continue
                link = os.readlink(f"/proc/self/fd/{fd}")
                device = os.fstat(fd).st_dev
                os.close(fd)
                if _is_foreign(link) and device != _proc.st_dev:  # another attacker lists /proc
                    self.gain(f"descriptor {number}: {link}")
        finally:
            os.close(process)

    def listing(self, pid: int) -> None:
        """The same by the directory."""
        for number in os.listdir(f"/proc/{pid}/fd"):
            try:
                link = os.readlink(f"/proc/{pid}/fd/{number}")
                device = os.stat(f"/proc/{pid}/fd/{number}").st_dev
            except FileNotFoundError:
                continue
            if _is_foreign(link) and device != _proc.st_dev:
                self.gain(f"descriptor {number}: {link}")

    def copies(self, pid: int) -> None:
        """pidfd_getfd(2)."""
        pidfd = os.pidfd_open(pid)
        try:
            for number in range(24):
                try:
                    fd = call(_PIDFD_GETFD, pidfd, number, 0)
                except OSError as error:
                    if error.errno != 9:
                        raise
                    continue
                link = os.readlink(f"/proc/self/fd/{fd}")
                device = os.fstat(fd).st_dev
                os.close(fd)
                if _is_foreign(link) and device != _proc.st_dev:
                    self.gain(f"copy of descriptor {number}: {link}")
        finally:
            os.close(pidfd)

    def program(self, pid: int) -> None:
        link = os.readlink(f"/proc/{pid}/exe")
        if _is_foreign(link.removesuffix(" (deleted)")):
            self.gain(f"program: {link}")

    def tree(self, pid: int) -> None:
        for name in ("root", "cwd"):
            fd = os.open(f"/proc/{pid}/{name}", os.O_PATH)
            there = os.fstat(fd)
            os.close(fd)
            if (there.st_dev, there.st_ino) != (_root.st_dev, _root.st_ino):
                self.gain(f"{name}: {there.st_dev}:{there.st_ino}")

    def memory(self, pid: int) -> None:
        fd = os.open(f"/proc/{pid}/mem", os.O_RDWR)
        try:
            self.maps(pid)
        finally:
            os.close(fd)

    def maps(self, pid: int) -> None:
        with open(f"/proc/{pid}/maps") as file:
            names = [line.split(maxsplit=5)[5].strip() for line in file if len(line.split(maxsplit=5)) == 6]
        for name in names:
            if name.startswith("/") and _is_foreign(name.removesuffix(" (deleted)")):
                self.gain(f"memory: {name}")

    def mounts(self, pid: int) -> None:
        """/proc/PID/mountinfo, which everybody may read."""
        if foreign := _mount_points(pid) - _points:
            self.gain(f"mounts: {' '.join(sorted(foreign))}")

    def network(self, pid: int) -> None:
        """/proc/PID/net, which everybody may read."""
        if os.stat(f"/proc/{pid}/net/dev").st_ino == self.network_of_host:
            self.gain("network")

    def arguments(self, pid: int) -> None:
        """/proc/PID/cmdline, which everybody may read."""
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            content = file.read()
        if b"attacked" in content:
            self.gain(f"arguments: {content!r}")

    def environment(self, pid: int) -> None:
        with open(f"/proc/{pid}/environ", "rb") as file:
            content = file.read()
        if b"SECRET" in content:
            self.gain("environment")

    def copy(self, pid: int) -> None:
        """process_vm_readv(2) of nothing: EFAULT says that it would."""
        import ctypes
        import struct

        memory = ctypes.create_string_buffer(8)
        here, there = struct.pack("=QQ", ctypes.addressof(memory), 1), struct.pack("=QQ", 0, 1)
        try:
            call(_PROCESS_VM_READV, pid, here, 1, there, 1, 0)
        except OSError as error:
            if error.errno != 14:
                raise
            self._judge(pid, "copy")

    def trace(self, pid: int) -> None:
        call(_PTRACE, _SEIZE, pid, 0, 0)
        call(_PTRACE, 0x4207, pid, 0, 0)  # PTRACE_INTERRUPT
        os.waitpid(pid, 0x40000000)
        self._judge(pid, "traced")
        call(_PTRACE, _DETACH, pid, 0, 0)

    def limits(self, pid: int) -> None:
        """prlimit(2) is allowed to whoever has the same ids; it can make the entry fail, and no more."""
        import resource

        resource.prlimit(pid, resource.RLIMIT_NOFILE)

    def stop(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    def _judge(self, pid: int, how: str) -> None:
        """Whether what was reached has more than a process of the jail's."""
        try:
            with open(f"/proc/{pid}/status") as file:
                status = dict(line.rstrip("\n").split(":\t", 1) for line in file)
        except OSError:
            return
        with open("/proc/self/status") as file:
            own = dict(line.rstrip("\n").split(":\t", 1) for line in file)
        if int(status["CapPrm"], 16) & ~int(own["CapPrm"], 16) or status["Seccomp"] != own["Seccomp"]:
            self.gain(f"{how}: capabilities {status['CapPrm']}, seccomp {status['Seccomp']}")

    def run(self) -> None:
        """Until standard input ends."""
        nearest = os.getpid()
        ended = select.poll()
        ended.register(0, select.POLLIN | select.POLLHUP)
        turn = 0
        while True:
            turn += 1
            if turn % 256 == 0:
                if ended.poll(0):
                    return
                nearest = max([nearest, *[int(name) for name in os.listdir("/proc") if name.isdigit()]])
            for pid in (nearest + 1, nearest + 2):
                try:
                    self.reach(pid)
                except (FileNotFoundError, ProcessLookupError, ChildProcessError):
                    continue
                except OSError:
                    self.refused += 1
                self.met += 1
                nearest = max(nearest, pid - 1)


if __name__ == "__main__":
    attacker = Attacker(sys.argv[1], int(sys.argv[2]))
    print("ready", flush=True)
    attacker.run()
    for line, count in attacker.gained.items():
        print(f"{count} x {line}")
    print(json.dumps([attacker.met, attacker.refused]))
