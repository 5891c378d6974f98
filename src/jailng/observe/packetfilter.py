"""Which packets are wanted, and how much of each: an expression of pcap-filter(7), or all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jailng.errors import JailError
from jailng.linux import packet
from jailng.params.values import visible

if TYPE_CHECKING:
    from jailng.linux.libpcap import Filter
    from jailng.linux.packet import Frame
    from jailng.observe.pcapng import Packet


class Wanted:
    """``program`` is what a packet socket of Ethernet's takes. Raises JailError for what is no expression."""

    __slots__ = ("_filter", "expression", "program", "snaplen")

    def __init__(self, expression: str, snaplen: int) -> None:
        self.expression = expression
        self.snaplen = snaplen
        self._filter: Filter | None = None
        if not expression:
            self.program = packet.everything(snaplen)
            return
        from jailng.linux import libpcap

        try:
            self._filter = libpcap.Filter(expression, snaplen)
        except (ValueError, OSError) as error:
            raise JailError(f'filter "{visible(expression)}": {visible(str(error))}') from None
        self.program = self._filter.program

    def takes(self, frame: Frame | Packet) -> bool:
        """Whether a frame that did not come through ``program`` is wanted, as it was or, as there, without its tag."""
        if self._filter is None:
            return True
        data = bytes(frame.data)
        if self._filter.takes(data, frame.length):
            return True
        return packet.is_tagged(data) and self._filter.takes(packet.untagged(data), frame.length - packet.TAG)
