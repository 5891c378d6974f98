"""Faults at a chosen system call of a chosen process: a tracer of commands and of all that they start.

strace(1) counts the calls of each process by itself, and cannot tell processes apart before they are there; here a
process is known by the order of births (``0.2.1`` is the first child of the third child of the first command), so that
one call of one of them can be made to fail, or its caller killed there. The tracer is a program of its own, which reads
requests, a line each, and has a child trace each: what is still traced when that ends goes on by itself.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

_CONT, _GETREGS, _SETREGS, _SYSCALL = 7, 12, 13, 24
_SEIZE, _INTERRUPT, _LISTEN, _GETEVENTMSG, _INFO = 0x4206, 0x4207, 0x4208, 0x4201, 0x420E
_O_SYSGOOD, _O_FORK, _O_VFORK, _O_CLONE, _O_EXEC = 1, 2, 4, 8, 16
_BIRTHS, _EVENT_EXEC, _EVENT_STOP = (1, 2, 3), 4, 128
_WALL = 0x40000000
_RAX, _RDX, _ORIG_RAX = 10, 12, 15  # words of struct user_regs_struct, x86_64
_EXITS = (60, 231, 15)  # exit, exit_group, rt_sigreturn: calls that do not return
_STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
KILL, SHORT = -9, -10  # instead of an errno: the caller is killed; a write takes half of what it is given
SUPPORTED = os.uname().machine == "x86_64"


class Call(NamedTuple):
    """The ``nth`` call of that name that a process makes, what it was about and what it returned."""

    process: str
    number: int
    nth: int
    text: str
    result: int | None

    def __str__(self) -> str:
        return f"{self.process}:{self.text} #{self.nth} = {self.result}"


class Done(NamedTuple):
    """What came of it: of the last command its status (a signal is negative) and what all of them wrote."""

    status: int
    out: str
    err: str
    fired: bool  # whether that call came
    hung: bool  # it had to be killed
    calls: list[Call]


class Injector:
    """The tracer, as a test has it."""

    def __init__(self) -> None:
        argv = [sys.executable, "-I", __file__]
        self._server = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _ask(self, **request: Any) -> Done:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer = json.loads(self._server.stdout.readline())
        status, out, err, fired, hung, calls = answer
        return Done(status, out, err, fired, hung, [Call(*call) for call in calls])

    def calls(self, *commands: Sequence[str], **how: Any) -> Done:
        """Run commands, one after the other, and tell all calls that they and what they start make.

        ``wait``: processes to be traced until they end, when the last command has; ``terminal``: a new one is the
        commands' controlling terminal and all their streams; ``seconds`` they may take.
        """
        return self._ask(commands=commands, listed=True, **how)

    def inject(self, fault: int, call: Call, *commands: Sequence[str], **how: Any) -> Done:
        """Run them with ``call`` failing with the errno ``fault``; or with KILL, or SHORT."""
        return self._ask(commands=commands, target=call[:3], text=call.text, fault=fault, **how)

    def close(self) -> None:
        """End the tracer."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()


@contextmanager
def injecting() -> Iterator[Injector]:
    """A tracer for a while."""
    made = Injector()
    try:
        yield made
    finally:
        made.close()


# The tracer


class _Process:
    """Of those traced."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.born = 0
        self.counts: dict[int, int] = {}
        self.begun = "." in name  # a command, once it is executed: before that it is the tracer's own fork
        self.inside: Call | None = None
        self.failing = 0


_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def _ptrace(what: int, pid: int, address: Any = None, data: Any = None) -> int:
    result = int(_libc.ptrace(what, pid, address, data))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


class _Tracer:
    def __init__(self, request: dict[str, Any]) -> None:
        self.target = tuple(request.get("target") or ())
        self.text = str(request.get("text", ""))
        self.fault = int(request.get("fault", 0))
        self.listed = bool(request.get("listed"))
        self.wait = set(request.get("wait", ()))
        self.terminal = bool(request.get("terminal"))
        self.processes: dict[int, _Process] = {}
        self.early: dict[int, int] = {}  # stopped before their parent's event told of them: pid and wait status
        self.calls: list[Call] = []
        self.fired = False
        self.info = ctypes.create_string_buffer(88)
        self.regs = (ctypes.c_ulonglong * 27)()
        self.message = ctypes.c_ulong()

    def run(self, name: str, argv: list[str], streams: Sequence[int]) -> int:
        """A command to its end: its wait status."""
        ready, go = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(go)
            os.read(ready, 1)
            if self.terminal:
                os.setsid()
                os.close(os.open(os.ttyname(streams[0]), os.O_RDWR))
            for fd, stream in enumerate(streams):
                os.dup2(stream, fd)
            os.closerange(3, 256)
            environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "TERM": "dumb"}
            os.execve(argv[0], argv, environment)
        os.close(ready)
        _ptrace(_SEIZE, pid, None, _O_SYSGOOD | _O_FORK | _O_VFORK | _O_CLONE | _O_EXEC)
        _ptrace(_INTERRUPT, pid)
        os.waitpid(pid, _WALL)
        self.processes[pid] = _Process(name)
        self._go_on(pid)
        os.close(go)
        return self._until({pid})

    def linger(self) -> None:
        """Until those that are waited for have ended."""
        self._until({pid for pid, process in self.processes.items() if process.name in self.wait})

    def _until(self, pids: set[int]) -> int:
        last = 0
        while pids:
            pid, status = os.waitpid(-1, _WALL)
            if os.WIFSTOPPED(status):
                with suppress(ProcessLookupError):  # killed meanwhile
                    self._stopped(pid, status)
            else:
                self.processes.pop(pid, None)
                self.early.pop(pid, None)
                if pid in pids:
                    last = status
                    pids.discard(pid)
        return last

    def _go_on(self, pid: int, number: int = 0) -> None:
        _ptrace(
            _CONT if self.fired and not self.listed and not self.processes[pid].failing else _SYSCALL, pid, None, number
        )

    def _stopped(self, pid: int, status: int) -> None:
        if pid not in self.processes:
            self.early[pid] = status
            return
        event, number = status >> 16, os.WSTOPSIG(status)
        if number == signal.SIGTRAP | 0x80:
            self._at_call(pid)
            return
        if event in _BIRTHS:
            _ptrace(_GETEVENTMSG, pid, None, ctypes.byref(self.message))
            parent, child = self.processes[pid], int(self.message.value)
            self.processes[child] = _Process(f"{parent.name}.{parent.born}")
            parent.born += 1
            if child in self.early:
                self._stopped(child, self.early.pop(child))
        elif event == _EVENT_EXEC:
            self.processes[pid].begun = True
        elif event == _EVENT_STOP and number in _STOPS:
            _ptrace(_LISTEN, pid)
            return
        self._go_on(pid, 0 if event else number)

    def _at_call(self, pid: int) -> None:
        process = self.processes[pid]
        if not process.begun:
            self._go_on(pid)
            return
        _ptrace(_INFO, pid, len(self.info), self.info)
        operation = self.info.raw[0]
        if operation == 1:
            number = int.from_bytes(self.info.raw[24:32], "little")
            count = process.counts[number] = process.counts.get(number, 0) + 1
            if self.listed:
                text = f"{_NAMES(number)}({self._words(pid)})"
                process.inside = Call(process.name, number, count, text, None)
                if number in _EXITS:
                    self.calls.append(process.inside)
                    process.inside = None
            if (process.name, number, count) == self.target and not self.fired and self._is_it(pid):
                self.fired = True
                if self.fault == KILL:
                    os.kill(pid, signal.SIGKILL)
                    return
                if self.fault == SHORT:
                    self._set(pid, _RDX, int.from_bytes(self.info.raw[48:56], "little") // 2)
                else:
                    process.failing = self.fault
                    self._set(pid, _ORIG_RAX, -1)
        else:
            result = int.from_bytes(self.info.raw[24:32], "little", signed=True)
            if process.failing:
                self._set(pid, _RAX, -process.failing)
                process.failing = 0
            if process.inside is not None:
                self.calls.append(process.inside._replace(result=result))
                process.inside = None
        self._go_on(pid)

    def _is_it(self, pid: int) -> bool:
        """Whether a write of which half is to be taken is that which was seen; the kernel takes some others whole."""
        return self.fault != SHORT or _begin(self._words(pid)) == _begin(self.text)

    def _set(self, pid: int, word: int, value: int) -> None:
        _ptrace(_GETREGS, pid, None, self.regs)
        self.regs[word] = value & (1 << 64) - 1
        _ptrace(_SETREGS, pid, None, self.regs)

    def _words(self, pid: int) -> str:
        """The arguments, as far as they are texts or small."""
        found = []
        with open(f"/proc/{pid}/mem", "rb", 0) as memory:
            for at in range(32, 80, 8):
                value = int.from_bytes(self.info.raw[at : at + 8], "little")
                text = b""
                if 65536 < value < 1 << 47:
                    with suppress(OSError):
                        text = os.pread(memory.fileno(), 100, value).partition(b"\0")[0]
                printable = len(text) > 1 and all(32 <= byte < 127 or byte == 10 for byte in text)
                found.append(repr(text.decode()) if printable else f"{value:#x}" if value > 9 else str(value))
        return ", ".join(found)


def _begin(text: str) -> str:
    return text.partition("'")[2][:4]


def _trace(request: dict[str, Any]) -> list[Any]:
    tracer = _Tracer(request)
    out, err = os.pipe(), os.pipe()
    null = os.open("/dev/null", os.O_RDONLY)
    streams = [null, out[1], err[1]]
    if tracer.terminal:
        out = os.openpty()
        streams = [out[1]] * 3
    hung = False
    status = 0

    def too_long(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(int(request.get("seconds", 90)))
    try:
        for index, argv in enumerate(request["commands"]):
            status = tracer.run(str(index), argv, streams)
        tracer.linger()
    except TimeoutError:
        hung = True
        for pid, process in [*tracer.processes.items()]:
            if "." not in process.name:
                os.kill(pid, signal.SIGKILL)
    signal.alarm(0)
    texts = [_drained(out[0]), _drained(err[0])]
    return [os.waitstatus_to_exitcode(status), *texts, tracer.fired, hung, tracer.calls]


def _drained(fd: int) -> str:
    os.set_blocking(fd, False)
    found = b""
    with suppress(OSError):
        while part := os.read(fd, 65536):
            found += part
    return found.decode("utf-8", "replace")


def _NAMES(number: int) -> str:
    import seccomp  # of the Python that Debian has it for

    name = seccomp.resolve_syscall(seccomp.Arch(), number)
    return name.decode() if isinstance(name, bytes) else str(name)


def main() -> None:
    """Answer requests until there are no more."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                answer = json.dumps(_trace(json.loads(line)))
            except BaseException as error:
                answer = json.dumps([-1, "", f"tracer: {error!r}", False, True, []])
            sys.stdout.write(answer + "\n")
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
