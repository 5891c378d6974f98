"""The routes of table main, as rtnetlink(7) has them: each as it is, and what makes, replaces and deletes one."""

from __future__ import annotations

from _struct import pack, unpack_from

from jailng.linux.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, attribute, attributes, nested, number
from jailng.linux.rtnetlink import AF_INET, AF_INET6, RT_SCOPE_LINK, RT_SCOPE_UNIVERSE, RT_TABLE_MAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.linux.netlink import Message

UNICAST, LOCAL, BLACKHOLE, PROHIBIT = 1, 2, 6, 8
OF_KERNEL, STATIC = 2, 4

_RTM_NEWROUTE, _RTM_DELROUTE = 24, 25
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_METRICS, _RTAX_MTU = 1, 4, 5, 6, 8, 2
_RTA_MULTIPATH, _RTA_VIA = 9, 18
_RT_SCOPE_NOWHERE = 255  # of any scope
_RTM_F_CLONED = 0x200


class Route:
    """A route to the ``bits`` first bits of ``target``. ``gateway`` is empty, and ``index`` and ``mtu`` 0, for none."""

    __slots__ = ("bits", "cloned", "gateway", "index", "kind", "mtu", "priority", "protocol", "table", "target")

    def __init__(
        self, target: bytes, bits: int, gateway: bytes = b"", index: int = 0, kind: int = UNICAST, mtu: int = 0
    ) -> None:
        self.target = target
        self.bits = bits
        self.gateway = gateway
        self.index = index
        self.kind = kind
        self.mtu = mtu
        self.priority = 0
        self.protocol = STATIC
        self.table = RT_TABLE_MAIN
        self.cloned = False

    @classmethod
    def read(cls, body: bytes) -> Route:
        """From an answer to ``rtnetlink.get_routes`` or ``get_route``."""
        family, bits, table, protocol, kind, flags = unpack_from("BBxxBBxBI", body)
        found = attributes(body, 12)
        target = found.get(_RTA_DST, bytes(4 if family == AF_INET else 16))
        made = cls(target, bits, found.get(_RTA_GATEWAY, b""), _value(found, _RTA_OIF), kind)
        made.mtu = _value(attributes(found.get(_RTA_METRICS, b"")), _RTAX_MTU)
        made.priority, made.protocol, made.table = _value(found, _RTA_PRIORITY), protocol, table
        made.cloned = bool(flags & _RTM_F_CLONED)
        return made

    def added(self) -> Message:
        """Make it. EEXIST: there is one to that target, with that priority."""
        return _RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, self._body(self._scope())

    def replacing(self) -> Message:
        """Make it in place of the one to that target, with that priority. ENOENT: there is none."""
        return _RTM_NEWROUTE, NLM_F_REPLACE, self._body(self._scope())

    def deleted(self) -> Message:
        """Delete it."""
        return _RTM_DELROUTE, 0, self._body(_RT_SCOPE_NOWHERE)

    def _scope(self) -> int:
        direct = len(self.target) == 4 and self.kind == UNICAST and not self.gateway
        return RT_SCOPE_LINK if direct else RT_SCOPE_UNIVERSE

    def _body(self, scope: int) -> bytes:
        family = AF_INET if len(self.target) == 4 else AF_INET6
        head = pack("BBBBBBBBI", family, self.bits, 0, 0, self.table, self.protocol, scope, self.kind, 0)
        parts = [attribute(_RTA_DST, self.target)] if self.bits else []
        parts += [attribute(_RTA_GATEWAY, self.gateway)] if self.gateway else []
        parts += [number(kind, value) for kind, value in self._numbers() if value]
        parts += [nested(_RTA_METRICS, number(_RTAX_MTU, self.mtu))] if self.mtu else []
        return head + b"".join(parts)

    def _numbers(self) -> tuple[tuple[int, int], ...]:
        return (_RTA_OIF, self.index), (_RTA_PRIORITY, self.priority)


def hops(body: bytes) -> list[tuple[bytes, int]]:
    """The ways of a route, of an answer to ``rtnetlink.get_routes``: each a gateway, empty for none, and an interface.

    A gateway may be of the other family (RTA_VIA).
    """
    found = attributes(body, 12)
    several = found.get(_RTA_MULTIPATH, b"")
    if not several:
        return [(_gateway(found), _value(found, _RTA_OIF))]
    ways = []
    while len(several) >= 8:
        length, index = unpack_from("Hxxi", several)
        if length < 8:
            break
        ways.append((_gateway(attributes(several[:length], 8)), int(index)))
        several = several[(length + 3) & ~3 :]
    return ways


def _gateway(found: dict[int, bytes]) -> bytes:
    return found.get(_RTA_GATEWAY, b"") or found.get(_RTA_VIA, b"")[2:]


def _value(found: dict[int, bytes], key: int) -> int:
    return int(unpack_from("I", found[key])[0]) if key in found else 0
