"""What a log's worker asks of whatever tells it of things that happen in a jail, apart from the guest's own lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jailng.observe.chain import Fields


class Source(Protocol):
    """What the kernel tells, for the chain. The worker polls ``fileno``, and puts what ``drain`` yields on record."""

    def fileno(self) -> int:
        """A descriptor that can be read from (POLLIN) when there is something to drain."""
        ...

    def drain(self) -> Iterable[tuple[str, Fields]]:
        """What has happened, kinds and fields of ``Chain.append``; at most some thousand at once, never blocking.

        What is lost before it gets here is an entry like others: ``("dropped", {"of": "exec", "count": 17})``.
        """
        ...

    def settle(self) -> None:
        """All that ``drain`` has yielded is written down now: the kernel may forget it. Called after each drain."""
        ...

    def close(self) -> None:
        """The jail has ended, or this is no longer wanted (``jail -m``)."""
        ...
