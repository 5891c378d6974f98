"""Processes that are confined as a jail's are, without the rest of a jail around them."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from jailng.core.confinement import Confinement
from jailng.linux import caps, foreign, libc, lsm
from jailng.linux.child import capset
from tests.kernel.stage import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWUTS, unshare

BASE = 0x7FFE0000  # uids that no jail of the host has: slots are handed out from 0x70000000 up
NAMESPACES = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC
_LOADED = foreign  # before a child is in a root that has none
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def call(number: int, *arguments: int) -> int:
    """syscall(2), every argument as the 64 bits it is: 0, or errno. A descriptor that it returned is closed."""
    result = _libc.syscall(ctypes.c_long(number), *[ctypes.c_ulong(argument) for argument in arguments])
    if result == -1:
        return ctypes.get_errno()
    if result > 2:
        try:
            os.close(result)
        except (OSError, OverflowError):  # modify_ldt(2) fails with a negative number of 32 bits
            pass
    return 0


def apply(confinement: Confinement) -> None:
    """What core/process.py does to a process on its way into a jail, in the same order."""
    for resource, soft, hard in confinement.rlimits:
        libc.syscall("prlimit64", 0, resource, libc.words(soft, hard), None)
    if confinement.landlock:
        attributes = libc.words(0, 0, confinement.landlock)
        libc.syscall(
            "landlock_restrict_self", libc.syscall("landlock_create_ruleset", attributes, len(attributes), 0), 0
        )
    attach(confinement.program)
    limit_to(confinement.caps)


def attach(program: bytes) -> None:
    """Put this process under a filter, with CAP_SYS_ADMIN in its user namespace and without no_new_privs."""
    code = libc.buffer(program)
    header = libc.words(len(program) // 8) + libc.words(libc.address(code))
    libc.syscall("seccomp", 1, 0, header)


def limit_to(keep: int) -> None:
    """Drop every capability but ``keep`` from the bounding set, then hold exactly those."""
    for number in range(caps.last() + 1):
        if not keep >> number & 1:
            libc.syscall("prctl", 24, number)
    libc.syscall("prctl", 47, 4)
    capset(keep)


def child(body: Callable[[], Any]) -> Any:
    """What ``body`` returns, through JSON, in a process of its own.

    Raises AssertionError with the traceback of what it raised, or with the name of the signal that ended it.
    """
    return _finish(*_start(body))


def in_namespaces(body: Callable[[], Any], flags: int = NAMESPACES) -> Any:
    """``child``, as root of a new user namespace with uids of its own, in other new namespaces that belong to it."""
    ready, mapped = os.pipe(), os.pipe()

    def outside() -> Any:
        unshare(flags)
        os.write(ready[1], b".")
        os.read(mapped[0], 1)
        return child(inside)

    def inside() -> Any:
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        return body()

    pid, answer = _start(outside)
    os.read(ready[0], 1)
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{pid}/{name}", "w") as file:
            file.write(f"0 {BASE} 65536")
    os.write(mapped[1], b".")
    for fd in (*ready, *mapped):
        os.close(fd)
    return _finish(pid, answer)


def _start(body: Callable[[], Any]) -> tuple[int, int]:
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return pid, read
    try:
        said = {"result": body()}
    except BaseException:
        said = {"error": traceback.format_exc()}
    os.write(write, json.dumps(said).encode())
    os._exit(0)


def _finish(pid: int, read: int) -> Any:
    with open(read, "rb") as pipe:
        said = pipe.read()
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        raise AssertionError(signal.Signals(os.WTERMSIG(status)).name)
    answer = json.loads(said)
    if "error" in answer:
        raise AssertionError(answer["error"])
    return answer["result"]


def judges_types() -> bool:
    """Whether this kernel takes a program for its mount hook and asks it."""
    try:
        os.close(lsm.load([b"tmpfs"]))
    except OSError:
        return False
    return True


needs_a_judge = pytest.mark.skipif(not judges_types(), reason="this kernel takes no BPF program for its mount hook")
