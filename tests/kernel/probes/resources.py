"""Limits, scheduling and priority: hostile-root.md, number 35."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import struct
from functools import partial

from .attempt import ESCAPED, EXPOSED, HELD, Facts, Verdict, attempt, call, found, tried, why

_SCHED_SETATTR, _IOPRIO_SET, _MLOCK, _MLOCKALL, _TIMERFD_CREATE, _TIMER_CREATE = 314, 251, 149, 151, 283, 222
_LIMITS = {
    "CPU": resource.RLIMIT_CPU,
    "CORE": resource.RLIMIT_CORE,
    "NOFILE": resource.RLIMIT_NOFILE,
    "NPROC": resource.RLIMIT_NPROC,
    "MEMLOCK": resource.RLIMIT_MEMLOCK,
    "MSGQUEUE": resource.RLIMIT_MSGQUEUE,
    "NICE": resource.RLIMIT_NICE,
    "RTPRIO": resource.RLIMIT_RTPRIO,
    "SIGPENDING": resource.RLIMIT_SIGPENDING,
}


def _raise(number: int, facts: Facts) -> Verdict:
    _, hard = resource.getrlimit(number)
    if hard == resource.RLIM_INFINITY:
        return HELD, "there is no limit to raise"
    try:
        resource.setrlimit(number, (hard, hard + 1))
    except (OSError, ValueError) as error:
        return HELD, str(error)
    return ESCAPED, f"raised above {hard}"


for _name, _number in _LIMITS.items():
    attempt(f"resources: raise the limit of {_name}")(partial(_raise, _number))


def _nice(which: int, facts: Facts) -> Verdict:
    return tried(lambda: os.setpriority(which, 0, -20))


for _name, _number in (("process", os.PRIO_PROCESS), ("process group", os.PRIO_PGRP), ("user", os.PRIO_USER)):
    attempt(f"resources: nice -20 of the {_name}")(partial(_nice, _number))


def _policy(policy: int, priority: int, facts: Facts) -> Verdict:
    return tried(lambda: os.sched_setscheduler(0, policy, os.sched_param(priority)))


for _name, _number in (("SCHED_FIFO", os.SCHED_FIFO), ("SCHED_RR", os.SCHED_RR)):
    attempt(f"resources: {_name}")(partial(_policy, _number, 1))


@attempt("resources: SCHED_DEADLINE")
def _deadline(facts: Facts) -> Verdict:
    attributes = struct.pack("=IIQiIQQQ", 48, 6, 0, 0, 0, 10_000_000, 100_000_000, 100_000_000)
    return tried(lambda: call(_SCHED_SETATTR, 0, attributes, 0))


@attempt("resources: real-time input and output")
def _ioprio(facts: Facts) -> Verdict:
    return tried(lambda: call(_IOPRIO_SET, 1, 0, 1 << 13))


@attempt("resources: mlock")
def _mlock(facts: Facts) -> Verdict:
    memory = mmap.mmap(-1, 4096)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return tried(lambda: call(_MLOCK, address, 4096))


@attempt("resources: mlockall")
def _mlockall(facts: Facts) -> Verdict:
    return tried(lambda: call(_MLOCKALL, 2))


@attempt("resources: memory locked by MAP_LOCKED")
def _map_locked(facts: Facts) -> Verdict:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_long
    result = libc.mmap(None, ctypes.c_long(1 << 20), 3, 0x2022, -1, ctypes.c_long(0))
    return (HELD, os.strerror(ctypes.get_errno())) if result == -1 else (ESCAPED, "locked")


@attempt("resources: huge pages of the host's pool")
def _huge(facts: Facts) -> Verdict:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_long
    result = libc.mmap(None, ctypes.c_long(2 << 20), 3, 0x40022, -1, ctypes.c_long(0))
    return (HELD, os.strerror(ctypes.get_errno())) if result == -1 else (EXPOSED, "mapped")


@attempt("resources: never be killed for memory")
def _oom(facts: Facts) -> Verdict:
    def write() -> str:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("-1000")
        return "-1000"

    return tried(write)


@attempt("resources: what came from the caller")
def _from_the_caller(facts: Facts) -> Verdict:
    """Niceness, policy, score and processors are the jail's own, whatever the one who started it had."""
    with open("/proc/self/oom_score_adj") as file:
        score = file.read().strip()
    had = {
        "nice": str(os.getpriority(os.PRIO_PROCESS, 0)),
        "policy": str(os.sched_getscheduler(0)),
        "oom_score_adj": score,
    }
    return found([f"{name}={value}" for name, value in had.items() if value != "0"])


@attempt("resources: a better share by autogroup")
def _autogroup(facts: Facts) -> Verdict:
    def write() -> str:
        with open("/proc/self/autogroup", "w") as file:
            file.write("-20")
        return "-20"

    return tried(write)


@attempt("resources: wake the machine up (CLOCK_REALTIME_ALARM)")
def _alarm(facts: Facts) -> Verdict:
    return tried(lambda: call(_TIMERFD_CREATE, 8, 0))


@attempt("resources: wake the machine up by a POSIX timer")
def _alarm_timer(facts: Facts) -> Verdict:
    return tried(lambda: call(_TIMER_CREATE, 8, None, ctypes.create_string_buffer(8)))


@attempt("resources: secret memory")
def _secret(facts: Facts) -> Verdict:
    """memfd_secret(2) keeps the host from hibernating while it is open, and what is mapped is never swapped out."""
    try:
        fd = call(447, 0)
    except OSError as error:
        return HELD, why(error)
    os.ftruncate(fd, 4096)
    try:
        mmap.mmap(fd, 4096)  # not touched: where the kernel counts only then, that is the end of the process
    except OSError as error:
        return EXPOSED, f"opened; mmap: {why(error)}"
    return EXPOSED, "mapped"


def _cgroup(name: str, facts: Facts) -> Verdict:
    got = []
    for top in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/memory"):
        try:
            os.close(os.open(f"{top}/{name}", os.O_WRONLY))
            got.append(f"{top}/{name}")
        except OSError:
            continue
    return found(got, ESCAPED)


for _name in (
    "cgroup.procs",
    "tasks",
    "cgroup.subtree_control",
    "release_agent",
    "notify_on_release",
    "memory.limit_in_bytes",
):
    attempt(f"cgroups: write {_name}")(partial(_cgroup, _name))


@attempt("cgroups: make one")
def _make_cgroup(facts: Facts) -> Verdict:
    for top in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup", "/sys/fs/cgroup/pids"):
        verdict = tried(partial(os.mkdir, f"{top}/attempt"))
        if verdict[0] == ESCAPED and os.path.exists(f"{top}/attempt/cgroup.procs"):
            os.rmdir(f"{top}/attempt")
            return verdict
    return HELD, "no hierarchy is mounted"
