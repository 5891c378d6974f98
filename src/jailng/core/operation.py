"""Operations: what a plan is made of, and the one walk that carries it out."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jailng.core.program import Program
    from jailng.core.registry import Record

    Slots = dict[str, int]


class Operation:
    """One step towards a jail, as data. Everything is decided before the first one is applied.

    What is not known before, file descriptors and pids, one operation leaves for the next in ``slots``.
    """

    __slots__ = ()

    def undo_lines(self) -> list[str]:
        """What outlives this process, in the words of ``core.undo``; written to the record before ``apply``."""
        return []

    def apply(self, slots: Slots) -> None:
        """Do it. Raises JailError with a sentence, or OSError."""
        raise NotImplementedError

    def outside(self, way: Program, slots: Slots) -> None:
        """For the builder (``core.builder``): add what it does while it is still in the host's namespaces."""

    def inside(self, way: Program, slots: Slots) -> None:
        """For the builder: add what it does in the jail's namespaces, with the host's privileges."""

    def describe(self) -> str:
        """One line for ``jail --plan``, in the imperative."""
        raise NotImplementedError

    def notes(self, noted: list[int]) -> list[str]:
        """Once it is applied: what whoever asked with -v should know of it.

        ``noted`` are the calls of the builder's program that failed and did no harm.
        """
        return []

    def warnings(self, noted: list[int]) -> list[str]:
        """Once it is applied: what could not be, and is let pass (ng.lenient); ``noted`` as above."""
        return []

    def inner(self) -> Iterable[Operation]:
        """The operations that another process carries out on behalf of this one."""
        return ()


def carry_out(plan: list[Operation], slots: Slots, record: Record) -> None:
    """Apply each operation in turn. On failure the caller walks the record back; nothing is undone here."""
    for operation in plan:
        lines = operation.undo_lines()
        if lines:
            record.append([f"undo {line}" for line in lines])
        operation.apply(slots)


def describe(plan: Iterable[Operation], depth: int = 0) -> Iterator[str]:
    """The plan as lines of text, what other processes do indented below the operation that starts them."""
    for operation in plan:
        yield "  " * depth + operation.describe()
        yield from describe(operation.inner(), depth + 1)
