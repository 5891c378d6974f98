"""Limits, scheduling and priority, and the cgroups that they are in."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import struct
from functools import partial

from .probe import ABSENT, ESCAPED, EXPOSED, HELD, SEEN, Facts, Verdict, call, found, mapped, probe, tried, why

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
_SHM_HUGETLB, _RMID = 0o4000, 0
_PR_SCHED_CORE, _PR_SCHED_CORE_CREATE = 62, 1


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
    probe(f"resources: raise the limit of {_name}")(partial(_raise, _number))


def _nice(which: int, facts: Facts) -> Verdict:
    return tried(lambda: os.setpriority(which, 0, -20))


for _name, _number in (("process", os.PRIO_PROCESS), ("process group", os.PRIO_PGRP)):
    probe(f"resources: nice -20 of the {_name}")(partial(_nice, _number))


def _policy(policy: int, priority: int, facts: Facts) -> Verdict:
    return tried(lambda: os.sched_setscheduler(0, policy, os.sched_param(priority)))


for _name, _number in (("SCHED_FIFO", os.SCHED_FIFO), ("SCHED_RR", os.SCHED_RR)):
    probe(f"resources: {_name}")(partial(_policy, _number, 1))


@probe("resources: SCHED_DEADLINE")
def _deadline(facts: Facts) -> Verdict:
    attributes = struct.pack("=IIQiIQQQ", 48, 6, 0, 0, 0, 10_000_000, 100_000_000, 100_000_000)
    return tried(lambda: call("sched_setattr", 0, attributes, 0))


@probe("resources: a shorter slice than others have")
def _slice(facts: Facts) -> Verdict:
    """Whoever wants less of it at a time comes first (Linux 6.12)."""
    attributes = struct.pack("=IIQiIQQQ", 48, os.SCHED_OTHER, 0, 0, 0, 1_000_000, 0, 0)
    return tried(lambda: call("sched_setattr", 0, attributes, 0), EXPOSED)


@probe("resources: the kernel's own slice for what is forked (SCHED_RESET_ON_FORK)")
def _reset(facts: Facts) -> Verdict:
    policy = os.SCHED_OTHER | os.SCHED_RESET_ON_FORK
    return tried(lambda: os.sched_setscheduler(0, policy, os.sched_param(0)), EXPOSED)


@probe("resources: other threads of the core kept idle (core scheduling)")
def _core(facts: Facts) -> Verdict:
    """A cookie of its own, which goes with the process."""
    return tried(lambda: call("prctl", _PR_SCHED_CORE, _PR_SCHED_CORE_CREATE, 0, 0, 0), EXPOSED)


@probe("resources: real-time input and output")
def _ioprio(facts: Facts) -> Verdict:
    return tried(lambda: call("ioprio_set", 1, 0, 1 << 13))


@probe("resources: mlock")
def _mlock(facts: Facts) -> Verdict:
    memory = mmap.mmap(-1, 4096)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return tried(lambda: call("mlock", address, 4096), EXPOSED)


@probe("resources: mlockall")
def _mlockall(facts: Facts) -> Verdict:
    return tried(lambda: call("mlockall", 2), EXPOSED)


@probe("resources: memory locked by MAP_LOCKED")
def _map_locked(facts: Facts) -> Verdict:
    return tried(lambda: mapped(1 << 20, 0x2000), EXPOSED)


@probe("resources: huge pages of the host's pool")
def _huge(facts: Facts) -> Verdict:
    """Of the smallest size there is: it is reserved, and given back at once."""
    return tried(lambda: mapped(2 << 20, 0x40000), EXPOSED)


@probe("resources: huge pages of the host's pool, by System V")
def _huge_segment(facts: Facts) -> Verdict:
    """With the host's group 0 no limit stands before it (can_do_hugetlb_shm() in fs/hugetlbfs/inode.c)."""

    def take() -> None:
        call("shmctl", call("shmget", 0, 2 << 20, _SHM_HUGETLB | 0o1600), _RMID, None)

    return tried(take, EXPOSED)


def _is_limited(seen: str, facts: Facts) -> Verdict:
    """The host knows, and it is not tried."""
    limit = facts.get("processes", "")
    if not limit:
        return ABSENT, "it is not known which cgroups these are"
    return (EXPOSED, "as many as there can be") if limit == "max" else (HELD, f"{limit} at most")


@probe("resources: a limit of processes", _is_limited)
def _processes(facts: Facts) -> Verdict:
    return SEEN, ""


@probe("resources: never be killed for memory")
def _oom(facts: Facts) -> Verdict:
    def write() -> str:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("-1000")
        return "-1000"

    return tried(write)


@probe("resources: what came from the caller")
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


@probe("resources: a better share by autogroup")
def _autogroup(facts: Facts) -> Verdict:
    def write() -> str:
        with open("/proc/self/autogroup", "w") as file:
            file.write("-20")
        return "-20"

    return tried(write)


@probe("resources: wake the machine up (CLOCK_REALTIME_ALARM)")
def _alarm(facts: Facts) -> Verdict:
    return tried(lambda: call("timerfd_create", 8, 0))


@probe("resources: wake the machine up by a POSIX timer")
def _alarm_timer(facts: Facts) -> Verdict:
    return tried(lambda: call("timer_create", 8, None, ctypes.create_string_buffer(8)))


@probe("resources: secret memory")
def _secret(facts: Facts) -> Verdict:
    """memfd_secret(2) keeps the host from hibernating while it is open, and what is mapped is never swapped out."""
    try:
        fd = call("memfd_secret", 0)
    except OSError as error:
        return HELD, why(error)
    os.ftruncate(fd, 4096)
    try:
        mmap.mmap(fd, 4096)  # not touched: where the kernel counts only then, that is the end of the process
    except OSError as error:
        return EXPOSED, f"opened; mmap: {why(error)}"
    return EXPOSED, "mapped"


CGROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/memory")


def _cgroup(name: str, facts: Facts) -> Verdict:
    got = []
    for top in CGROUPS:
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
    probe(f"cgroups: write {_name}")(partial(_cgroup, _name))


@probe("cgroups: make one")
def _make_cgroup(facts: Facts) -> Verdict:
    """Asked, not done."""
    for top in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup", "/sys/fs/cgroup/pids"):
        if os.path.exists(f"{top}/cgroup.procs") and os.access(top, os.W_OK | os.X_OK):
            return ESCAPED, f"{top} may be written to"
    return HELD, "no hierarchy is mounted"
