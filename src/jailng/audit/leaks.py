"""What a jail tells of its host: each compared with what the host knows of itself."""

from __future__ import annotations

import ctypes
import os
import struct
import time
from functools import partial

from .probe import EXPOSED, HELD, SEEN, Facts, Verdict, call, content, found, probe, why


def _named(seen: str, facts: Facts) -> Verdict:
    return (EXPOSED, "the same") if facts["hostname"] in seen.split() else (HELD, "its own")


@probe("leaks: the host's name", _named, light=True)
def _hostname(facts: Facts) -> Verdict:
    here = [os.uname().nodename]
    try:
        with open("/proc/sys/kernel/hostname") as file:
            here.append(file.read().strip())
    except OSError:
        pass
    return SEEN, " ".join(here)


def _tells(fact: str, seen: str, facts: Facts) -> Verdict:
    """Exposed if what the host calls by that name stands in the file."""
    if not facts.get(fact):
        return HELD, "there is nothing to tell"
    return (EXPOSED, "it stands there") if facts[fact] in seen else (HELD, "it does not stand there")


def _read(file: str, facts: Facts) -> Verdict:
    return content(file)


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
    probe(f"leaks: {_name}", partial(_tells, _fact), light=True)(partial(_read, _file))


@probe("leaks: the caller's environment", light=True)
def _environment(facts: Facts) -> Verdict:
    """The host puts a word of its own into what it starts the container's program with."""
    return found([key for key, value in os.environ.items() if facts["token"] in value])


@probe("leaks: the root's path in the environment", partial(_tells, "root"), light=True)
def _path(facts: Facts) -> Verdict:
    return SEEN, " ".join(os.environ.values())


@probe("leaks: descriptors of the caller's", light=True)
def _descriptors(facts: Facts) -> Verdict:
    return found([number for number in facts["inherited"].split() if int(number) > 2])


def _sized(seen: str, facts: Facts) -> Verdict:
    return (EXPOSED, "as on the host") if seen in facts["blocks"].split() else (HELD, "its own")


@probe("leaks: the file system's size", _sized, light=True)
def _size(facts: Facts) -> Verdict:
    return SEEN, str(os.statvfs("/").f_blocks)


@probe("leaks: how much memory and swap is in use, in /proc/meminfo", light=True)
def _in_use(facts: Facts) -> Verdict:
    """What /proc/meminfo has of all of the machine's: caches, page tables, memory of the kernel's."""
    names = ("Buffers", "KernelStack", "PageTables", "Percpu", "VmallocUsed", "SUnreclaim")
    try:
        with open("/proc/meminfo") as file:
            lines = [line.split() for line in file if line.startswith(names)]
    except OSError as error:
        return HELD, why(error)
    return found([" ".join(line) for line in lines if int(line[1]) > 1 << 14])


@probe("leaks: what of the processor no program can ask it for, in cpuinfo", light=True)
def _microcode(facts: Facts) -> Verdict:
    try:
        with open("/proc/cpuinfo") as file:
            return found([line.strip() for line in file if line.startswith("microcode")])
    except OSError as error:
        return HELD, why(error)


@probe("leaks: processors that are not the jail's, in cpuinfo and stat", light=True)
def _processors(facts: Facts) -> Verdict:
    allowed = os.sched_getaffinity(0)
    told: set[int] = set()
    try:
        with open("/proc/cpuinfo") as file:
            told |= {int(line.split(":")[1]) for line in file if line.startswith("processor")}
        with open("/proc/stat") as file:
            names = [line.split()[0] for line in file if line.startswith("cpu")]
    except OSError as error:
        return HELD, why(error)
    return found(sorted(told.union(int(name[3:]) for name in names if name != "cpu") - allowed))


def _number(seen: str, name: str) -> int:
    """The first number of the line of a file that begins with that name; -1 if there is none."""
    for line in seen.splitlines():
        words = line.split()
        if words[:1] == [name] and words[1:] and words[1].isdigit():
            return int(words[1])
    return -1


def _as_many(seen: str, facts: Facts) -> Verdict:
    started = _number(seen, "processes")
    return (EXPOSED, f"{started} processes started") if started >= int(facts["started"]) else (HELD, str(started))


@probe("leaks: activity in /proc/stat", _as_many, light=True)
def _stat(facts: Facts) -> Verdict:
    """Processes that were ever started, on the whole machine."""
    return content("/proc/stat")


def _loaded(seen: str, facts: Facts) -> Verdict:
    """The last word of it counts pids, and processes before that are the machine's."""
    words = seen.split()
    threads = words[3].partition("/")[2] if len(words) == 5 else ""
    many = threads.isdigit() and int(threads) >= int(facts["threads"]) // 2
    return (EXPOSED, f"{threads} threads") if many else (HELD, "not the machine's")


@probe("leaks: load in /proc/loadavg", _loaded, light=True)
def _load(facts: Facts) -> Verdict:
    return content("/proc/loadavg")


def _as_large(seen: str, facts: Facts) -> Verdict:
    same = seen.isdigit() and abs(int(seen) - int(facts["memory"])) < 1024
    return (EXPOSED, f"{int(seen) >> 10} MB") if same else (HELD, "the jail's own")


@probe("leaks: memory, load and processes by sysinfo", _as_large, light=True)
def _sysinfo(facts: Facts) -> Verdict:
    memory = ctypes.create_string_buffer(128)
    call("sysinfo", memory)
    total, unit = struct.unpack_from("=Q", memory, 32)[0], struct.unpack_from("=I", memory, 104)[0]
    return SEEN, str(total * unit // 1024)


def _as_long(part: float, seen: str, facts: Facts) -> Verdict:
    """Seconds: exposed if there is one that is no less than that part of the host's."""
    numbers = [float(word) for word in seen.split()]
    return found([f"{number:.0f} s" for number in numbers if number >= float(facts["uptime"]) * part])


@probe("leaks: how long the host has been up", partial(_as_long, 1), light=True)
def _uptime(facts: Facts) -> Verdict:
    with open("/proc/uptime") as file:
        up = float(file.read().split()[0])
    return SEEN, f"{up} {time.clock_gettime(time.CLOCK_MONOTONIC)} {time.clock_gettime(time.CLOCK_BOOTTIME)}"


@probe("leaks: how long the host has been up, by time idle", light=True)
def _idle(facts: Facts) -> Verdict:
    with open("/proc/uptime") as file:
        up, idle = map(float, file.read().split())
    most = 2 * (up + 1) * (os.cpu_count() or 1)
    return (EXPOSED, f"{idle:.0f} s idle in {up:.0f}") if idle > most else (HELD, f"{idle}")


@probe("leaks: how long the host has been up, by the time namespace", partial(_as_long, 0.5), light=True)
def _offsets(facts: Facts) -> Verdict:
    try:
        with open("/proc/self/timens_offsets") as file:
            return SEEN, " ".join(str(abs(int(line.split()[1]))) for line in file)
    except OSError as error:
        return HELD, why(error)


def _since(seen: str, facts: Facts) -> Verdict:
    near = abs(_number(seen, "btime") - int(facts["btime"])) < 60
    return (EXPOSED, "the host's") if near else (HELD, "the jail's")


@probe("leaks: since when the host is up, in /proc/stat", _since, light=True)
def _btime(facts: Facts) -> Verdict:
    return content("/proc/stat")


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
    probe(f"leaks: counter {_name}", light=True)(partial(_counter, _name))


@probe("leaks: activity in /proc/vmstat", light=True)
def _vmstat(facts: Facts) -> Verdict:
    try:
        with open("/proc/vmstat") as file:
            return found([line.split()[0] for line in file if line.split()[1] != "0"])
    except OSError as error:
        return HELD, why(error)


@probe("leaks: how long the host has been up, by when it was scheduled", partial(_as_long, 0.5), light=True)
def _scheduled(facts: Facts) -> Verdict:
    """se.exec_start is of a clock that knows no namespace."""
    try:
        with open("/proc/self/sched") as file:
            return SEEN, " ".join(
                str(float(line.split()[2]) / 1000) for line in file if line.startswith("se.exec_start")
            )
    except OSError as error:
        return HELD, why(error)


@probe("leaks: how many sessions there were, by autogroup", light=True)
def _autogroup(facts: Facts) -> Verdict:
    """A number from one counter for all."""
    try:
        with open("/proc/self/autogroup") as file:
            number = int(file.read().partition("-")[2].split()[0])
    except OSError as error:
        return HELD, why(error)
    return (EXPOSED, f"session {number}") if number > 100 else (HELD, str(number))


@probe("leaks: packets of the machine in /proc/net/softnet_stat", light=True)
def _softnet(facts: Facts) -> Verdict:
    try:
        with open("/proc/net/softnet_stat") as file:
            packets = sum(int(line.split()[0], 16) for line in file)
    except OSError as error:
        return HELD, why(error)
    return (EXPOSED, f"{packets} packets") if packets > 1000 else (HELD, str(packets))


@probe("leaks: memory of all sockets in /proc/net/sockstat", light=True)
def _sockstat(facts: Facts) -> Verdict:
    """``alloc`` and ``mem`` are sums over all network namespaces."""
    try:
        with open("/proc/net/sockstat") as file:
            line = next(line.split() for line in file if line.startswith("TCP:"))
    except OSError as error:
        return HELD, why(error)
    told = [f"{name} {line[line.index(name) + 1]}" for name in ("alloc", "mem") if line[line.index(name) + 1] != "0"]
    return found(told)


@probe("leaks: routes of the machine in /proc/net/stat/rt_cache", light=True)
def _routes(facts: Facts) -> Verdict:
    try:
        with open("/proc/net/stat/rt_cache") as file:
            counts = [int(word, 16) for line in list(file)[1:] for word in line.split()]
    except OSError as error:
        return HELD, why(error)
    return (EXPOSED, f"{sum(counts)} in all") if sum(counts) > 100 else (HELD, "next to nothing")


@probe("leaks: how many cgroups there are", light=True)
def _cgroups(facts: Facts) -> Verdict:
    try:
        with open("/proc/cgroups") as file:
            counts = [int(line.split()[2]) for line in file if not line.startswith("#")]
    except OSError as error:
        return HELD, why(error)
    return found([count for count in counts if count > 1])


@probe("leaks: numbers of the host's processes", light=True)
def _pids(facts: Facts) -> Verdict:
    """As seen from outside: NSpid has a column a namespace, from the reader's own inwards."""
    with open("/proc/self/status") as file:
        numbers = [line.split()[1:] for line in file if line.startswith(("NSpid", "NStgid"))]
    return found([column for line in numbers for column in line[:-1]])


@probe("leaks: who is at the other end of a terminal, a pipe or a socket", light=True)
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
