"""The command line of this process, as /proc/PID/cmdline shows it to everybody: proc_pid_cmdline(5)."""

from __future__ import annotations

import posix

from jailng.linux.libc import syscall

_BEGIN, _END = 45, 46  # fields of /proc/PID/stat, counted from the one after the name: arg_start, arg_end


class Hidden:
    """``with Hidden():`` nothing is shown, of this process for as long as it lasts, of those forked in it for ever.

    Raises OSError.
    """

    __slots__ = ("_begin", "_kept", "_size")

    def __enter__(self) -> None:
        stat = posix.open("/proc/self/stat", posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            fields = posix.read(stat, 4096).rpartition(b") ")[2].split()
        finally:
            posix.close(stat)
        self._begin, end = int(fields[_BEGIN]), int(fields[_END])
        self._size = end - self._begin
        self._kept = posix.memfd_create("arguments", posix.MFD_CLOEXEC)
        try:
            self._move("write")
            posix.lseek(self._kept, self._size, 0)
            posix.ftruncate(self._kept, 2 * self._size)
            self._move("read")
        except BaseException:
            posix.close(self._kept)
            raise

    def __exit__(self, *_: object) -> None:
        try:
            posix.lseek(self._kept, 0, 0)
            self._move("read")
        finally:
            posix.close(self._kept)

    def _move(self, call: str) -> None:
        """Between the kernel's file and where they lie in memory, which is nothing that Python knows of."""
        if self._size > 0:
            syscall(call, self._kept, self._begin, self._size)
