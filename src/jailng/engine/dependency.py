"""Which jail comes after which: ``depend``, and the jail that another is in (usr.sbin/jail/state.c)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jailng.core.registry import Record
    from jailng.engine.life import Walk
    from jailng.params.model import Parameters

# What is to be done, as on the command line: -c, -m, -r.
START, SET, STOP = 1, 2, 4


class Edge:
    """``later`` depends on ``earlier``; ``light``: only on its being there, as on the jail it is in.

    ``met``: START when ``earlier`` has been started, or set; STOP when ``later`` has been stopped. A restart is both.
    """

    __slots__ = ("earlier", "later", "light", "met")

    def __init__(self, later: Jail, earlier: Jail, light: bool) -> None:
        self.later = later
        self.earlier = earlier
        self.light = light
        self.met = 0


class Jail:
    """One of the jails: by ``name``, which is its block's in jail.conf(5) or that of a running jail.

    ``read`` gives its parameters, or raises JailError; with true for its argument those that it is stopped by. ``work``
    is what is to be done, some of START, SET and STOP; ``wild`` that it was not asked for by its name, ``drawn`` that
    it is there because another depends on it. ``clean``: what was made around it goes also where it does not run any
    more. ``killed``: it was running, and is only to be taken apart (engine/ahead.py). ``over``: its work is done.
    """

    __slots__ = (
        "after", "before", "clean", "drawn", "failed", "killed", "name", "open", "over", "params", "read", "record",
        "sought", "waiting", "walk", "wild", "work",
    )  # fmt: skip

    def __init__(self, name: str, read: Callable[[bool], Parameters]) -> None:
        self.name = name
        self.read = read
        self.params: Parameters | None = None
        self.record: Record | None = None
        self.sought = False  # whether it was looked for among the running jails
        self.after: list[Edge] = []  # those that it depends on
        self.before: list[Edge] = []  # those that depend on it
        self.open = 0  # how many of these are not done yet
        self.work = 0
        self.failed = self.wild = self.drawn = self.clean = self.killed = self.over = False
        self.walk: Walk | None = None
        self.waiting = ""  # the queue in which it is

    @property
    def stops(self) -> bool:
        """Whether it is to be stopped before anything else."""
        return self.work & (SET | STOP) == STOP

    @property
    def way(self) -> int:
        """STOP, or START for what it does otherwise."""
        return STOP if self.stops else START

    def edges(self) -> list[Edge]:
        """What has to be done before it is its turn."""
        return self.before if self.stops else self.after

    def depend(self, earlier: Jail, light: bool = False) -> None:
        """Have it come after another."""
        edge = Edge(self, earlier, light)
        self.after.append(edge)
        earlier.before.append(edge)

    def count(self) -> None:
        """Count what has to be done before it, from now on."""
        way = self.way
        self.open = sum([not edge.met & way for edge in self.edges()])


def connect(
    jails: dict[str, Jail], depends: Callable[[Jail], Iterable[str]], fail: Callable[[Jail, str], None]
) -> None:
    """Lay the edges: ``depends`` names the jails that one depends on, and each depends on the one that it is in.

    ``fail`` is told of those that depend on what there is not, or on each other.
    """
    for jail in jails.values():
        if jail.failed:
            continue
        for name in depends(jail):
            earlier = jails.get(name)
            if earlier is None:
                fail(jail, f'depends on undefined jail "{name}"')
            else:
                jail.depend(earlier)
        parent = jails.get(jail.name.rpartition(".")[0])
        if parent is not None:
            jail.depend(parent, light=True)
    _find_loops(jails, fail)


def _find_loops(jails: dict[str, Jail], fail: Callable[[Jail, str], None]) -> None:
    """Take away what depends on nothing that is left, again and again; what cannot be taken away is in a loop."""
    open_edges = {jail: len(jail.after) for jail in jails.values()}
    free = [jail for jail, number in open_edges.items() if number == 0]
    held = {jail: None for jail, number in open_edges.items() if number}
    while True:
        while free:
            for edge in free.pop().before:
                open_edges[edge.later] -= 1
                if open_edges[edge.later] == 0 and edge.later in held:
                    del held[edge.later]
                    free.append(edge.later)
        if not held:
            return
        jail = next(iter(held))
        fail(jail, "dependency loop")
        del held[jail]
        free.append(jail)
