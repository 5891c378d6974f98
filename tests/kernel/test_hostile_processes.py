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
            # A descriptor tells Popen of the exec, which is closed before signals and command line are the program's.
            while not Path(f"/proc/{many.pid}/cmdline").read_bytes().startswith(b"sleep"):
                pass
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


# In a PID namespace of its own, with its own /proc.
_APART = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-IS", "-c"]
# When the first of two is waited for, the second ends and another gets its number.
_NUMBERED = """
import os, select, subprocess, sys
sys.path.insert(0, sys.argv[1])
from jailng.ctl import roots
marked = [subprocess.Popen(["sleep", "1000"], env={**os.environ, "JAILNG_BOOTSTRAP": "/r.partial"}) for _ in "12"]
for one in marked:  # Popen hears of the exec before that is over
    while b"JAILNG_BOOTSTRAP" not in open(f"/proc/{one.pid}/environ", "rb").read():
        pass
other = []
def between(wait):
    def waited(*args):
        if not other:
            marked[1].kill()
            marked[1].wait()
            with open("/proc/sys/kernel/ns_last_pid", "w") as file:
                file.write(str(marked[1].pid - 1))
            other.append(subprocess.Popen(["sleep", "1000"]))
        for one in marked:
            one.poll()
        return wait(*args)
    return waited
select.select, poll = between(select.select), select.poll
select.poll = between(poll)
roots._kill("/r.partial")
marked[0].wait()
print(other[0].pid == marked[1].pid, other[0].poll())
"""


def test_number_of_another_by_then(checkout: Path) -> None:
    """One that bears what a bootstrap(8) that was killed has started, and ends while another is waited for."""
    done = subprocess.run([*_APART, _NUMBERED, str(checkout / "src")], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True None\n", "")


_ENDED = """
import os, subprocess, sys
from types import SimpleNamespace
sys.path.insert(0, sys.argv[1])
from jailng.core import attach
from jailng.linux import processid
init = subprocess.Popen(["sleep", "1000"])
record = SimpleNamespace(init=processid.of(init.pid), init_pid=init.pid)
print(os.path.samestat(os.fstat(attach.open_tree_of(record)), os.stat("/")))
init.kill()
init.wait()
with open("/proc/sys/kernel/ns_last_pid", "w") as file:
    file.write(str(init.pid - 1))
other = subprocess.Popen(["sleep", "1000"])
print(other.pid == init.pid)
for opening in (lambda: attach.open_tree_of(record), lambda: processid.open_namespace(record.init, "net")):
    try:
        opening()
        print("opened")
    except FileNotFoundError:
        print("not there")
"""


def test_root_and_namespaces_of_a_jail_that_has_ended(checkout: Path) -> None:
    """They are not those of whoever has the number of its PID 1 by now."""
    done = subprocess.run([*_APART, _ENDED, str(checkout / "src")], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\nTrue\nnot there\nnot there\n", "")
