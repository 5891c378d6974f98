"""What this kernel has nothing of, so that it cannot be had: what held then held for no reason of the container's."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Callable
from functools import cache

from jailng.audit.numbers import NUMBERS
from jailng.audit.probe import HELD, PROBES, call

_X32 = 0x40000000
# Probes named otherwise than the call that they make.
_CALLS = {
    "calls: swap on a file": "swapon",
    "calls: io_uring": "io_uring_setup",
    "calls: bpf map": "bpf",
    "calls: bpf, walk over the host's programs": "bpf",
    "calls: perf, own cycles": "perf_event_open",
    "calls: perf, every process on a processor": "perf_event_open",
    "calls: userfaultfd for user mode alone": "userfaultfd",
    "resources: secret memory": "memfd_secret",
    "mounts: open_tree_attr of /": "open_tree_attr",
    "mounts: listmount": "listmount",
}
_SOCKETS = {"raw ICMP": (2, 3, 1), "raw IPv6": (10, 3, 58), "SCTP": (2, 1, 132), "DCCP": (2, 6, 33)}
_CAP_SYS_RESOURCE = 24
# Counters of the machine's that say nothing while they are small: of packets, on one without a network.
_COUNTED = (
    "leaks: packets of the machine in /proc/net/softnet_stat",
    "leaks: routes of the machine in /proc/net/stat/rt_cache",
)
_TUNES = (6, 18)  # Linux with EXT4_IOC_GET_TUNE_SB_PARAM


def lacks(name: str) -> bool:
    """Whether the kernel has not what the probe of that name reaches for. Root only."""
    kind, _, what = name.partition(": ")
    verb, _, path = what.partition(" ")
    files = _files(kind, verb, path)
    if files:
        written = verb == "write" and kind != "cgroups"
        return not any(os.path.exists(file) and not (written and _is_read_only(file)) for file in files)
    if name == "files: EXT4_IOC_GET_TUNE_SB_PARAM":
        return _release() < _TUNES
    if name in _COUNTED:
        return PROBES[name].function({})[0] == HELD
    if name == "network: SIOCGIFBR":
        return _loads_modules()  # then it is not tried
    if kind == "sockets" and not _loads_modules():
        return _lacks_socket(what)
    if kind == "mounts" and what.split()[1:2] and "/proc/" in what:
        return not all(os.path.exists(word) for word in what.split() if word.startswith("/proc/"))
    if kind == "resources" and name not in _CALLS:
        return _lacks_resource(what)
    if name in _CALLS:
        return _is_unknown(_CALLS[name], 0)
    if kind == "calls":
        call_name, _, way = what.partition(", ")
        if way.startswith("x32"):
            return _is_unknown("getpid", _X32)
        if way == "i386":
            return _has_no_i386()
        return call_name == "the next one that will be" or (call_name in NUMBERS and _is_unknown(call_name, 0))
    return False


def _files(kind: str, verb: str, path: str) -> list[str]:
    """Where the file is that a probe is about, on the host."""
    if kind in ("proc", "sys") and verb in ("read", "write"):
        return [path if path[:1] == "/" else f"/{kind}/{path}"]
    if kind == "devices" and verb == "open":
        return [path]
    if kind == "leaks" and verb == "counter":
        return [f"/proc/sys/{path}"]
    if kind == "cgroups" and verb == "write":
        from jailng.audit.resources import CGROUPS

        return [f"{top}/{path}" for top in CGROUPS]
    return []


def _is_read_only(file: str) -> bool:
    """Whether nobody may write to it, behind which there is nothing: audit/procfs.py."""
    return not os.stat(file).st_mode & 0o222


def _release() -> tuple[int, ...]:
    return tuple(int(word) for word in os.uname().release.split("-")[0].split(".")[:2])


@cache
def _loads_modules() -> bool:
    return os.path.exists("/proc/sys/kernel/modprobe")


@cache
def _is_unknown(name: str, more: int) -> bool:
    """Asked in a process of its own, as the probes ask."""
    from jailng.audit.calls import arguments

    if name not in NUMBERS:
        return True

    def ask() -> int:
        try:
            call(NUMBERS[name] | more, *arguments(name))
        except OSError as error:
            return int(error.errno == errno.ENOSYS)
        return 0

    return _child(ask) == 1


@cache
def _has_no_i386() -> bool:
    from jailng.audit.calls import enter_as_i386

    return _child(lambda: int(enter_as_i386(20) == -errno.ENOSYS)) != 0


def _lacks_resource(what: str) -> bool:
    """What depends on the machine rather than the kernel."""
    if what.startswith("raise the limit") or what == "never be killed for memory":
        return not _capabilities() >> _CAP_SYS_RESOURCE & 1
    if what.startswith("huge pages"):
        return all(_number(f"/proc/sys/vm/{file}") == 0 for file in ("nr_hugepages", "nr_overcommit_hugepages"))
    if what.startswith("other threads of the core"):
        return _has_no_cookies()
    if what.startswith("wake the machine up by"):
        return not os.path.isdir("/sys/class/rtc") or not os.listdir("/sys/class/rtc")
    return False


def _has_no_cookies() -> bool:
    """Whether the kernel, or the machine, has no core scheduling: PR_SCHED_CORE_GET."""
    try:
        call("prctl", 62, 0, 0, 0, ctypes.create_string_buffer(8))
    except OSError:
        return True
    return False


def _capabilities() -> int:
    """What root of this machine has; here and there a container's host is one itself."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith("CapEff"))


def _number(path: str) -> int:
    try:
        with open(path) as file:
            return int(file.read())
    except OSError:
        return 0


def _lacks_socket(what: str) -> bool:
    words = what.split(",")[0].split()
    if words[0] in ("family", "netlink"):
        number = int(words[1])
        triples = [(number, kind, 0) for kind in (1, 2, 3, 5)] if words[0] == "family" else [(16, 3, number)]
        return all(_refused(*triple) for triple in triples)
    if words[0] == "pair":
        return _refused(int(words[-1]), 1, 0) and _refused(int(words[-1]), 3, 0)
    return what in _SOCKETS and _refused(*_SOCKETS[what])


@cache
def _refused(family: int, kind: int, protocol: int) -> bool:
    try:
        os.close(call("socket", family, kind, protocol))
    except OSError as error:
        return error.errno in (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT)
    return False


def _child(action: Callable[[], int]) -> int:
    """The exit status of a process that does it; not 0 where a signal ends it."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            signal.alarm(5)
            os._exit(action())
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
