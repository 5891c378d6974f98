"""What a process of an enemy's can make of its own files in /proc, which the host's commands read."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from jailng.engine import behalf
from jailng.linux import signals
from jailng.procs import process


def test_as_many_groups_as_can_be_had() -> None:
    """They are a line of 700 kB in /proc/PID/status, behind which there is more to be known."""
    groups = list(range(0x70000000, 0x70000000 + 65536))
    with subprocess.Popen(["sleep", "1000"], extra_groups=groups) as many:
        try:
            assert signals.is_minded(many.pid, signal.SIGTSTP) is False
            assert behalf._pid_at(many.pid, 0) == str(many.pid)
            found = process.read(many.pid)
            assert found is not None and int(found.status["SigCgt"], 16) == 0 and found.status["Threads"] == "1"
            assert len(str(found.status)) < 1 << 14
        finally:
            many.kill()


# prctl(2), PR_SET_MM_MAP, which takes no privilege: this much of its memory is its command line and its environment.
_ALL_OF_IT = """
import ctypes, mmap, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
size = 1 << 29
memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_NORESERVE)
at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
stat = open("/proc/self/stat").read().rpartition(") ")[2].split()
code, end, stack = [int(stat[number]) for number in (23, 24, 25)]
data, data_end, brk = [int(stat[number]) for number in (42, 43, 44)]
fields = [code, end, data, data_end, brk, brk, stack, at, at + size, at, at + size]
made = ctypes.create_string_buffer(struct.pack("=12QIi", *fields, 0, 0, -1))
done = libc.prctl(35, 14, ctypes.c_void_p(ctypes.addressof(made)), ctypes.c_ulong(len(made) - 1), ctypes.c_ulong(0))
print("set" if done == 0 else ctypes.get_errno(), flush=True)
sys.stdin.read()
"""
_READ = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from jailng.audit import observed
from jailng.ctl import roots
resource.setrlimit(resource.RLIMIT_AS, (1 << 28, 1 << 28))
roots._kill("nothing")
print(observed.of("nothing"))
"""


def test_memory_that_is_called_a_command_line(checkout: Path) -> None:
    """Half a gigabyte, where it may be terabytes: who reads it has less memory than that."""
    argv = [sys.executable, "-IS", "-c", _ALL_OF_IT]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as liar:
        assert liar.stdout is not None
        assert liar.stdout.readline() == "set\n"
        read = [sys.executable, "-IS", "-c", _READ, str(checkout / "src")]
        done = subprocess.run(read, capture_output=True, text=True, timeout=60)
        liar.kill()
    assert (done.returncode, done.stdout, done.stderr) == (0, "{}\n", "")
