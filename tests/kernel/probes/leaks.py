"""What a jail tells of its host: each compared with what the host knows of itself."""

from __future__ import annotations

import ctypes
import os
import struct
import time
from functools import partial

from .attempt import EXPOSED, HELD, Facts, Verdict, attempt, call, found, told, why


@attempt("leaks: the host's name")
def _hostname(facts: Facts) -> Verdict:
    here = {os.uname().nodename, os.uname()[1]}
    for name in ("/proc/sys/kernel/hostname",):
        try:
            with open(name) as file:
                here.add(file.read().strip())
        except OSError:
            pass
    return (EXPOSED, facts["hostname"]) if facts["hostname"] in here else (HELD, " ".join(here))


def _in_file(file: str, fact: str, facts: Facts) -> Verdict:
    return told(file, facts[fact]) if facts.get(fact) else (HELD, "there is nothing to tell")


for _name, _file, _fact in (
    ("the root's path in mountinfo", "/proc/self/mountinfo", "root"),
    ("the root's path in mounts", "/proc/self/mounts", "root"),
    ("the host's disk in mountinfo", "/proc/self/mountinfo", "disk name"),
    ("the cgroup's name", "/proc/self/cgroup", "cgroup"),
    ("the cgroup's name, of PID 1", "/proc/1/cgroup", "cgroup"),
    ("the boot's id", "/proc/sys/kernel/random/boot_id", "boot id"),
    ("the kernel's command line", "/proc/cmdline", "command line"),
    ("how much memory there is", "/proc/meminfo", "memory"),
    ("the range of its uids", "/proc/self/uid_map", "base"),
    ("the range of its uids in mountinfo", "/proc/self/mountinfo", "base"),
    ("the host's keys", "/proc/keys", "key name"),
):
    attempt(f"leaks: {_name}")(partial(_in_file, _file, _fact))


@attempt("leaks: the caller's environment")
def _environment(facts: Facts) -> Verdict:
    return found([f"{key}={value}" for key, value in os.environ.items() if facts["token"] in value])


@attempt("leaks: the root's path in the environment")
def _path(facts: Facts) -> Verdict:
    return found([key for key, value in os.environ.items() if facts["root"] and facts["root"] in value])


@attempt("leaks: descriptors of the caller's")
def _descriptors(facts: Facts) -> Verdict:
    return found([number for number in facts["inherited"].split() if int(number) > 2])


@attempt("leaks: the file system's size")
def _size(facts: Facts) -> Verdict:
    return (EXPOSED, "as on the host") if str(os.statvfs("/").f_blocks) == facts["blocks"] else (HELD, "its own")


@attempt("leaks: how much memory and swap is in use, in /proc/meminfo")
def _in_use(facts: Facts) -> Verdict:
    """What /proc/meminfo has of all of the machine's: caches, page tables, memory of the kernel's."""
    names = ("Buffers", "KernelStack", "PageTables", "Percpu", "VmallocUsed", "SUnreclaim")
    try:
        with open("/proc/meminfo") as file:
            lines = [line.split() for line in file if line.startswith(names)]
    except OSError as error:
        return HELD, why(error)
    return found([" ".join(line) for line in lines if int(line[1]) > 1 << 14])


@attempt("leaks: what of the processor no program can ask it for, in cpuinfo")
def _microcode(facts: Facts) -> Verdict:
    try:
        with open("/proc/cpuinfo") as file:
            return found([line.strip() for line in file if line.startswith("microcode")])
    except OSError as error:
        return HELD, why(error)


@attempt("leaks: processors that are not the jail's, in cpuinfo and stat")
def _processors(facts: Facts) -> Verdict:
    allowed = os.sched_getaffinity(0)
    told: set[int] = set()
    try:
        with open("/proc/cpuinfo") as file:
            told |= {int(line.split(":")[1]) for line in file if line.startswith("processor")}
        with open("/proc/stat") as file:
            told |= {
                int(line.split()[0][3:]) for line in file if line.startswith("cpu") and not line.startswith("cpu ")
            }
    except OSError as error:
        return HELD, why(error)
    return found(sorted(told - allowed))


@attempt("leaks: activity in /proc/stat")
def _stat(facts: Facts) -> Verdict:
    """Processes that were ever started, on the whole machine."""
    try:
        with open("/proc/stat") as file:
            counts = {line.split()[0]: line.split()[1] for line in file if line.strip()}
    except OSError as error:
        return HELD, why(error)
    started = int(counts.get("processes", "0"))
    return (EXPOSED, f"{started} processes started") if started >= int(facts["started"]) else (HELD, str(started))


@attempt("leaks: load in /proc/loadavg")
def _load(facts: Facts) -> Verdict:
    """The last word of it counts pids, and runnable processes before that are the machine's."""
    try:
        with open("/proc/loadavg") as file:
            words = file.read().split()
    except OSError as error:
        return HELD, why(error)
    threads = int(words[3].partition("/")[2])
    return (EXPOSED, " ".join(words)) if threads >= int(facts["threads"]) // 2 else (HELD, " ".join(words))


@attempt("leaks: memory, load and processes by sysinfo")
def _sysinfo(facts: Facts) -> Verdict:
    memory = ctypes.create_string_buffer(128)
    call(99, memory)
    total, unit = struct.unpack_from("=Q", memory, 32)[0], struct.unpack_from("=I", memory, 104)[0]
    same = abs(total * unit // 1024 - int(facts["memory"])) < 1024
    return (EXPOSED, f"{total * unit >> 20} MB") if same else (HELD, "the jail's own")


@attempt("leaks: how long the host has been up")
def _uptime(facts: Facts) -> Verdict:
    with open("/proc/uptime") as file:
        up = float(file.read().split()[0])
    clocks = [time.clock_gettime(clock) for clock in (time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME)]
    return found([f"{value:.0f} s" for value in (up, *clocks) if value >= float(facts["uptime"])])


@attempt("leaks: how long the host has been up, by time idle")
def _idle(facts: Facts) -> Verdict:
    with open("/proc/uptime") as file:
        up, idle = map(float, file.read().split())
    return (
        (EXPOSED, f"{idle:.0f} s idle in {up:.0f}")
        if idle > 2 * (up + 1) * (os.cpu_count() or 1)
        else (HELD, f"{idle}")
    )


@attempt("leaks: how long the host has been up, by the time namespace")
def _offsets(facts: Facts) -> Verdict:
    try:
        with open("/proc/self/timens_offsets") as file:
            seconds = [abs(int(line.split()[1])) for line in file]
    except OSError as error:
        return HELD, why(error)
    return found([second for second in seconds if second > float(facts["uptime"]) / 2])


@attempt("leaks: since when the host is up, in /proc/stat")
def _btime(facts: Facts) -> Verdict:
    try:
        with open("/proc/stat") as file:
            since = [int(line.split()[1]) for line in file if line.startswith("btime")]
    except OSError as error:
        return HELD, why(error)
    return found([second for second in since if abs(second - int(facts["btime"])) < 60])


def _counter(path: str, facts: Facts) -> Verdict:
    """A number that all of the host has a share in."""
    try:
        with open(f"/proc/sys/{path}") as file:
            content = file.read().strip()
    except OSError as error:
        return HELD, why(error)
    return (EXPOSED, content) if content.split() and content.split()[0] != "0" else (HELD, content or "empty")


for _name in (
    "fs/file-nr",
    "fs/inode-nr",
    "fs/inode-state",
    "fs/dentry-state",
    "fs/aio-nr",
    "fs/quota/lookups",
    "kernel/pty/nr",
    "kernel/hung_task_detect_count",
):
    attempt(f"leaks: counter {_name}")(partial(_counter, _name))


@attempt("leaks: activity in /proc/vmstat")
def _vmstat(facts: Facts) -> Verdict:
    try:
        with open("/proc/vmstat") as file:
            return found([line.strip() for line in file if line.split()[1] != "0"])
    except OSError as error:
        return HELD, why(error)


@attempt("leaks: how long the host has been up, by when it was scheduled")
def _scheduled(facts: Facts) -> Verdict:
    """se.exec_start is of a clock that knows no namespace."""
    try:
        with open("/proc/self/sched") as file:
            starts = [float(line.split()[2]) / 1000 for line in file if line.startswith("se.exec_start")]
    except OSError as error:
        return HELD, why(error)
    return found([f"{start:.0f} s" for start in starts if start > float(facts["uptime"]) / 2])


@attempt("leaks: how many sessions there were, by autogroup")
def _autogroup(facts: Facts) -> Verdict:
    """A number from one counter for all."""
    try:
        with open("/proc/self/autogroup") as file:
            number = int(file.read().partition("-")[2].split()[0])
    except OSError as error:
        return HELD, why(error)
    return (EXPOSED, f"session {number}") if number > 100 else (HELD, str(number))


@attempt("leaks: packets of the machine in /proc/net/softnet_stat")
def _softnet(facts: Facts) -> Verdict:
    try:
        with open("/proc/net/softnet_stat") as file:
            packets = sum(int(line.split()[0], 16) for line in file)
    except OSError as error:
        return HELD, why(error)
    return (EXPOSED, f"{packets} packets") if packets > 1000 else (HELD, str(packets))


@attempt("leaks: memory of all sockets in /proc/net/sockstat")
def _sockstat(facts: Facts) -> Verdict:
    """``alloc`` and ``mem`` are sums over all network namespaces."""
    try:
        with open("/proc/net/sockstat") as file:
            line = next(line.split() for line in file if line.startswith("TCP:"))
    except OSError as error:
        return HELD, why(error)
    told = [f"{name} {line[line.index(name) + 1]}" for name in ("alloc", "mem") if line[line.index(name) + 1] != "0"]
    return found(told)


@attempt("leaks: routes of the machine in /proc/net/stat/rt_cache")
def _routes(facts: Facts) -> Verdict:
    try:
        with open("/proc/net/stat/rt_cache") as file:
            counts = [int(word, 16) for line in list(file)[1:] for word in line.split()]
    except OSError as error:
        return HELD, why(error)
    return (EXPOSED, f"{sum(counts)} in all") if sum(counts) > 100 else (HELD, "next to nothing")


@attempt("leaks: how many cgroups there are")
def _cgroups(facts: Facts) -> Verdict:
    try:
        with open("/proc/cgroups") as file:
            counts = [int(line.split()[2]) for line in file if not line.startswith("#")]
    except OSError as error:
        return HELD, why(error)
    return found([count for count in counts if count > 1])


@attempt("leaks: numbers of the host's processes")
def _pids(facts: Facts) -> Verdict:
    """As seen from outside: NSpid has a column a namespace, from the reader's own inwards."""
    with open("/proc/self/status") as file:
        numbers = [line.split()[1:] for line in file if line.startswith(("NSpid", "NStgid"))]
    return found([column for line in numbers for column in line[:-1]])


@attempt("leaks: who is at the other end of a terminal, a pipe or a socket")
def _peer(facts: Facts) -> Verdict:
    import socket

    got = []
    for number in (0, 1, 2):
        try:
            made = socket.socket(fileno=os.dup(number))
        except OSError:
            continue
        with made:
            pid, uid, _ = struct.unpack("=iII", made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            got += [f"{number}: pid {pid} uid {uid}"] if pid and pid != os.getppid() else []
    return found(got)
