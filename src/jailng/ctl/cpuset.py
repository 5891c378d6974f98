"""cpuset(1) with FreeBSD's -j: the processors that a jail has. Without: those that there are for whoever asks."""

from __future__ import annotations

import errno
import getopt
import os
import re
from collections.abc import Collection
from pathlib import Path

from jailng.core import fresh
from jailng.core.registry import Record
from jailng.errors import JailError, UsageError
from jailng.linux import cpuset
from jailng.params.values import visible
from jailng.procs import printed
from jailng.procs.jails import named

USAGE = """usage: cpuset [-c] -l cpu-list [-j jail]
       cpuset -g [-cir] -j jail
       cpuset -g"""
_SETSIZE = 1024  # of FreeBSD's sys/sys/_cpuset.h
_LEVELS = {"c": " cpuset", "r": " root"}


def shim(argv: list[str]) -> int:
    """Run FreeBSD's cpuset. Raises JailError, and UsageError for what is not about jails."""
    try:
        asked, rest = getopt.getopt(argv, "Ccd:gij:l:n:p:rs:t:x:")
    except getopt.GetoptError:
        raise UsageError(USAGE) from None
    values = {option[1]: argument for option, argument in asked}
    letters = set(values)
    if "j" not in values:
        return _own(letters, values, rest)
    if rest or letters & set("Cdpstx") or ("g" in letters) == bool(letters & {"l", "n"}):
        raise JailError(f"this does not go with -j\n{USAGE}")
    if "n" in letters:
        raise JailError("-n: not honoured, memory is taken where its process runs")
    if "g" in letters:
        return _show(_jail(values["j"], "getaffinity"), letters)
    if letters & {"i", "r"}:
        raise JailError(f"this does not go with -l\n{USAGE}")
    chosen = cpus(values["l"])
    _limit(_jail(values["j"], "setaffinity"), chosen)
    return 0


def _own(letters: set[str], values: dict[str, str], rest: list[str]) -> int:
    """Those of this process, which ends with it: by -l programs ask whether there are such processors, by -g which."""
    if not rest and letters == {"g"}:
        status = Path("/proc/self/status").read_text()
        found = dict(re.findall("^(Cpus|Mems)_allowed_list:[ \t]*(.*)$", status, re.MULTILINE))
        return _print("pid -1", cpuset.numbers(found["Cpus"]), cpuset.numbers(found["Mems"]))
    if rest or not {"l"} <= letters <= {"c", "l"}:
        raise UsageError(USAGE)
    _check(cpus(values["l"]), os.sched_getaffinity(0))
    return 0


def cpus(text: str) -> list[int] | None:
    """The numbers of a list, in ascending order; None for all. By parselist() of FreeBSD's cpuset. Raises JailError."""
    if text.lower() == "all":
        return None
    if re.fullmatch("(,*[0-9]+(-[0-9]+)?(?=,|$))*,*", text) is None:
        raise JailError(f"Malformed list {visible(text)}")
    for number in re.findall("[0-9]+", text):
        if int(number.lstrip("0")[:9] or "0") >= _SETSIZE:
            raise JailError(f"List entry {number} exceeds maximum of {_SETSIZE - 1}")
    return sorted(set(cpuset.numbers(",".join([part for part in text.split(",") if part]))))


def _jail(word: str, call: str) -> Record:
    return named(word, lambda _: f"{call}: {os.strerror(errno.ESRCH)}")


def _show(jail: Record, letters: set[str]) -> int:
    level = next((name for letter, name in _LEVELS.items() if letter in letters), "")
    if "i" in letters:
        return printed.say([f"jail {jail.jid}{level or ' cpuset'} id: {jail.params.get('cpuset.id', jail.jid)}"])
    return _print(f"jail {jail.jid}{level}", cpuset.processors(jail.cgroup), cpuset.nodes(jail.cgroup))


def _print(what: str, processors: list[int], nodes: list[int]) -> int:
    shown, memory = [", ".join(map(str, numbers)) for numbers in (processors, nodes)]
    return printed.say([f"{what} mask: {shown}", f"{what} domain policy: first-touch mask: {memory}"])


def _check(chosen: list[int] | None, there: Collection[int]) -> None:
    """Whether all of them are there, and any. Raises JailError."""
    if chosen is not None and not set(chosen) <= set(there):
        raise JailError(f"setaffinity: {os.strerror(errno.EINVAL)}")
    if not (there if chosen is None else chosen):
        raise JailError("setaffinity: Resource deadlock avoided")


def _limit(jail: Record, chosen: list[int] | None) -> None:
    if os.geteuid() != 0:
        raise JailError(f"setaffinity: {os.strerror(errno.EPERM)}")
    if jail.parent:
        raise JailError("setaffinity: a jail in a jail has the processors of that one")
    there = cpuset.online()
    _check(chosen, there)
    try:
        # Of one that has ended by now nothing would take away what is made here.
        if not jail.lock_again() or not jail.alive():
            raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))
        cpuset.limit(jail.cgroup, there if chosen is None else chosen)
    except OSError as error:
        raise JailError(f"setaffinity: {error.strerror}") from None
    finally:
        jail.unlock()
    fresh.resize(jail)
