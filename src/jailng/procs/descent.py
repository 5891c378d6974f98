"""Processes by descent, as ``ps -d`` has them: descendant_sort() of FreeBSD's bin/ps."""

from __future__ import annotations

from collections.abc import Iterable

from jailng.procs.process import Process

_DEEPEST = 128  # characters in front: of a chain of n generations, which a jail may make, all would be n² of them


def by_descent(found: Iterable[Process]) -> list[tuple[Process, str]]:
    """These, children behind their parents and else in their order, each with what its command has in front.

    They are looked at one after the other, and a pid may be a new one's by then: who is his own ancestor by that is
    told as nobody's child.
    """
    left = {process.pid: process for process in found}
    children: dict[int, list[Process]] = {}
    for process in left.values():
        children.setdefault(process.parent if process.parent in left else 0, []).append(process)
    listed = []
    for process in [*children.get(0, []), *left.values()]:
        waiting = [(process, "", "")]  # no recursion: generations may be many
        while waiting:
            known, front, below = waiting.pop()
            if left.pop(known.pid, None) is not None:
                listed.append((known, front))
                waiting += reversed(_fronts(children.get(known.pid, []), front, below))
    return listed


def _fronts(members: list[Process], front: str, below: str) -> list[tuple[Process, str, str]]:
    """The children of who has ``front``: each with his own, and with what his grandchildren's have for his place."""
    if not front:
        return [(member, "- ", "") for member in members]
    told = []
    for member in members:
        drawn, line = ("`-- ", "  ") if member is members[-1] else ("|-- ", "| ")
        told.append((member, below + drawn, (below + line)[:_DEEPEST]))
    return told
