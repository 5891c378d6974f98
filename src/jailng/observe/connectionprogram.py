"""The programs on a jail's cgroup that tell of its connections: TCP from its beginning to its end, and flows of others.

What a process asks for (connect(2), sendto(2) of UDP) is told of where it is asked for, so with the process; what
comes of it, and what comes in, where the kernel does it, which is in no process. Both name a socket by where the kernel
has it. Its cookie would be given to it by that, which whoever asks for another's (SO_COOKIE) could tell. All permit
everything.
"""

from __future__ import annotations

import struct

from jailng.linux import bpf
from jailng.linux.bpf import FRAME, R0, R1, R2, R3, R4, R6, R7, R8, R9
from jailng.observe.tracecode import Trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jailng.linux.bpfmap import Map

CONNECT, CONNECTED, ACCEPTED, CLOSED, FAILED, LISTEN, FLOW_IN, FLOW_OUT, SEND = range(1, 10)

# time kind family protocol | pid uid comm | remote and local address | remote port as the kernel has it, local port |
# socket, bytes received, bytes that the other end has acknowledged
RECORD = struct.Struct("=QIHH II16s 16s16s II QQQ")
_TIME, _KIND, _FAMILY, _PROTOCOL, _PID, _UID, _COMM, _REMOTE, _LOCAL = 0, 8, 12, 14, 16, 20, 24, 40, 56
_REMOTE_PORT, _LOCAL_PORT, _SOCKET, _RECEIVED, _SENT = 72, 76, 80, 88, 96
SIZE = RECORD.size  # 104
KEY_SIZE = 32  # of a flow: family, protocol and what, ports, the other end, its socket
_AT = -SIZE - 8
_FLOW = _AT - KEY_SIZE
_PACKET = _FLOW - 48
_SLOT = _PACKET - 8

# struct bpf_sock_addr, bpf_sock_ops, __sk_buff and bpf_sock of include/uapi/linux/bpf.h
_ADDR_IP4, _ADDR_IP6, _ADDR_PORT, _ADDR_PROTOCOL, _ADDR_SK = 4, 8, 24, 36, 64
_OPS_OP, _OPS_OLD, _OPS_NEW, _OPS_FAMILY, _OPS_REMOTE4, _OPS_LOCAL4, _OPS_REMOTE6, _OPS_LOCAL6 = (
    0,
    4,
    8,
    20,
    24,
    28,
    32,
    48,
)
_OPS_REMOTE_PORT, _OPS_LOCAL_PORT, _OPS_RECEIVED, _OPS_ACKED, _OPS_SK = 64, 68, 168, 176, 184
_SKB_PROTOCOL, _SKB_SK, _SK_TYPE = 16, 168, 8

_TCP_CONNECT, _ACTIVE, _PASSIVE, _STATE, _TCP_LISTEN = 3, 4, 5, 10, 11
_STATE_FLAG = 1 << 2
_SYN_SENT, _CLOSE = 2, 7
_INET, _INET6 = 2, 10
_TCP, _UDP, _SCTP, _UDP_LITE = 6, 17, 132, 136  # whose headers begin with two ports
_SOCK_RAW = 3
_EXTENSIONS, _MOST = (0, 43, 60), 6  # options, routes; so many of them are looked behind
_WHILE = 30 * 10**9  # nanoseconds


class Maps:
    """The jail's ring for these, the count of what found no room in it, and the flows there are."""

    __slots__ = ("flows", "lost", "ring")

    def __init__(self, ring: Map, lost: Map, flows: Map) -> None:
        self.ring = ring
        self.lost = lost
        self.flows = flows


def _begin(code: Trace) -> None:
    code.copy(R6, R1)
    code.zero(_AT, SIZE)


def _finish(code: Trace, maps: Maps) -> bytes:
    """Tell of what is on the stack, and permit."""
    code.label("tell")
    code.call(bpf.KTIME_GET_BOOT_NS)
    code.put(FRAME, _AT + _TIME, R0)
    code.map(R1, maps.ring.fd)
    code.frame(R7, _AT)
    code.output(R7, SIZE)
    code.when(R0, "==", 0, "out")
    code.set(R1, 0)
    code.put(FRAME, _SLOT, R1, 4)
    code.look_up(maps.lost.fd, _SLOT)
    code.when(R0, "==", 0, "out")
    code.count_one(R0, 0)
    code.label("out")
    code.leave(1)
    return code.assembled()


def _kind(code: Trace, kind: int) -> None:
    code.set(R1, kind)
    code.put(FRAME, _AT + _KIND, R1, 4)


def _process(code: Trace) -> None:
    """Who asks. R6: the context, of a socket."""
    code.call(bpf.GET_CURRENT_PID_TGID)
    code.put(FRAME, _SLOT, R0)
    code.fetch(R1, FRAME, _SLOT + 4, 4)
    code.put(FRAME, _AT + _PID, R1, 4)
    code.call(bpf.GET_CURRENT_UID_GID)
    code.put(FRAME, _AT + _UID, R0, 4)
    code.frame(R1, _AT + _COMM)
    code.set(R2, 16)
    code.call(bpf.GET_CURRENT_COMM)
    code.load_pointer(R1, R6, _ADDR_SK)
    code.put(FRAME, _AT + _SOCKET, R1)


def _asked(code: Trace, family: int) -> None:
    """For where. R6: struct bpf_sock_addr."""
    code.set(R1, family)
    code.put(FRAME, _AT + _FAMILY, R1, 2)
    code.load(R1, R6, _ADDR_PROTOCOL)
    code.put(FRAME, _AT + _PROTOCOL, R1, 2)
    code.load(R1, R6, _ADDR_PORT)
    code.put(FRAME, _AT + _REMOTE_PORT, R1, 4)
    if family == _INET:
        code.load(R1, R6, _ADDR_IP4)
        code.put(FRAME, _AT + _REMOTE, R1, 4)
    else:
        for part in range(0, 16, 4):
            code.load(R1, R6, _ADDR_IP6 + part)
            code.put(FRAME, _AT + _REMOTE + part, R1, 4)


def connect(maps: Maps, family: int) -> bytes:
    """connect(2), whatever comes of it."""
    code = Trace()
    _begin(code)
    _kind(code, CONNECT)
    _process(code)
    _asked(code, family)
    return _finish(code, maps)


def send(maps: Maps, family: int) -> bytes:
    """The first datagram in a while that a socket without a peer sends to one."""
    code = Trace()
    _begin(code)
    _kind(code, SEND)
    _process(code)
    _asked(code, family)
    _flow_key(code, SEND)
    code.load_pointer(R1, R6, _ADDR_SK)
    code.put(FRAME, _FLOW + 24, R1)
    _unless_known(code, maps)
    return _finish(code, maps)


def _flow_key(code: Trace, what: int) -> None:
    """Of what is on the stack."""
    code.zero(_FLOW, KEY_SIZE)
    code.fetch(R1, FRAME, _AT + _FAMILY, 2)
    code.put(FRAME, _FLOW, R1, 2)
    code.fetch(R1, FRAME, _AT + _PROTOCOL, 2)
    code.put(FRAME, _FLOW + 2, R1, 1)
    code.set(R1, what)
    code.put(FRAME, _FLOW + 3, R1, 1)
    code.fetch(R1, FRAME, _AT + _REMOTE_PORT, 4)
    code.put(FRAME, _FLOW + 4, R1, 2)
    code.fetch(R1, FRAME, _AT + _LOCAL_PORT, 4)
    code.put(FRAME, _FLOW + 6, R1, 2)
    for part in (0, 8):
        code.fetch(R1, FRAME, _AT + _REMOTE + part)
        code.put(FRAME, _FLOW + 8 + part, R1)


def _unless_known(code: Trace, maps: Maps) -> None:
    """Go on if the flow was not known until now, or was last told of or renewed a while ago."""
    code.call(bpf.KTIME_GET_BOOT_NS)
    code.put(FRAME, _SLOT, R0)
    code.look_up(maps.flows.fd, _FLOW)
    code.when(R0, "==", 0, "new flow")
    code.fetch(R1, FRAME, _SLOT)
    code.fetch(R2, R0, 0)
    code.subtract_of(R1, R2)
    code.constant(R2, _WHILE)
    code.when_of(R1, "<", R2, "out")
    code.label("new flow")
    code.map(R1, maps.flows.fd)
    code.frame(R2, _FLOW)
    code.frame(R3, _SLOT)
    code.set(R4, 0)
    code.call(bpf.MAP_UPDATE_ELEM)


def states(maps: Maps) -> bytes:
    """What becomes of the jail's sockets of TCP."""
    code = Trace()
    _begin(code)
    code.load(R7, R6, _OPS_OP)
    code.jump_if(R7, _TCP_CONNECT, "follow")
    for op, kind in ((_ACTIVE, CONNECTED), (_PASSIVE, ACCEPTED), (_TCP_LISTEN, LISTEN)):
        following = code.fresh()
        code.jump_unless(R7, op, following)
        _kind(code, kind)
        code.jump("listens" if op == _TCP_LISTEN else "follow")
        code.label(following)
    code.jump_unless(R7, _STATE, "out")
    code.load(R1, R6, _OPS_NEW)
    code.jump_unless(R1, _CLOSE, "out")
    code.load(R8, R6, _OPS_OLD)
    _kind(code, CLOSED)
    code.jump_unless(R8, _SYN_SENT, "describe")
    _kind(code, FAILED)
    code.jump("describe")
    code.label("follow")
    code.copy(R1, R6)
    code.set(R2, _STATE_FLAG)
    code.call(bpf.SOCK_OPS_CB_FLAGS_SET)
    code.jump_if(R7, _TCP_CONNECT, "out")
    code.label("listens")
    code.label("describe")
    code.load_pointer(R1, R6, _OPS_SK)
    code.put(FRAME, _AT + _SOCKET, R1)
    code.set(R1, _TCP)
    code.put(FRAME, _AT + _PROTOCOL, R1, 2)
    for source, place in ((_OPS_REMOTE_PORT, _REMOTE_PORT), (_OPS_LOCAL_PORT, _LOCAL_PORT)):
        code.load(R1, R6, source)
        code.put(FRAME, _AT + place, R1, 4)
    for source, place in ((_OPS_RECEIVED, _RECEIVED), (_OPS_ACKED, _SENT)):
        code.load_pointer(R1, R6, source)
        code.put(FRAME, _AT + place, R1)
    code.load(R1, R6, _OPS_FAMILY)
    code.put(FRAME, _AT + _FAMILY, R1, 2)
    code.jump_if(R1, _INET, "four")
    for source, place in ((_OPS_REMOTE6, _REMOTE), (_OPS_LOCAL6, _LOCAL)):
        for part in range(0, 16, 4):
            code.load(R1, R6, source + part)
            code.put(FRAME, _AT + place + part, R1, 4)
    code.jump("tell")
    code.label("four")
    for source, place in ((_OPS_REMOTE4, _REMOTE), (_OPS_LOCAL4, _LOCAL)):
        code.load(R1, R6, source)
        code.put(FRAME, _AT + place, R1, 4)
    return _finish(code, maps)


def packet(maps: Maps, leaves: bool) -> bytes:
    """The first packet of a flow that is not TCP's; of one that a raw socket writes, whatever it is.

    A flow that a process has asked for is known to have begun, so what comes back is none of its own.
    """
    code = Trace()
    _begin(code)
    _kind(code, FLOW_OUT if leaves else FLOW_IN)
    code.set(R9, 0)  # the type of its socket
    code.load_pointer(R1, R6, _SKB_SK)
    code.jump_if_null(R1, "out")
    code.call(bpf.SK_FULLSOCK)
    code.jump_if_null(R0, "out")
    code.load(R9, R0, _SK_TYPE)
    code.load(R7, R6, _SKB_PROTOCOL)
    code.jump_if(R7, int.from_bytes(b"\x08\0\0\0", "little") if _LITTLE else 0x0800, "four")
    code.jump_if(R7, int.from_bytes(b"\x86\xdd\0\0", "little") if _LITTLE else 0x86DD, "six")
    code.jump("out")
    for family, label in ((_INET, "four"), (_INET6, "six")):
        code.label(label)
        _headers(code, family, leaves)
        code.jump("ports")
    code.label("ports")
    code.fetch(R7, FRAME, _AT + _PROTOCOL, 2)
    code.jump_if(R9, _SOCK_RAW, "raw")
    code.jump_if(R7, _TCP, "out")
    code.label("raw")
    for protocol in (_TCP, _UDP, _SCTP, _UDP_LITE):
        code.jump_if(R7, protocol, "has ports")
    code.jump("no ports")
    code.label("has ports")
    code.copy(R1, R6)
    code.copy(R2, R8)
    code.frame(R3, _PACKET)
    code.set(R4, 4)
    code.call(bpf.SKB_LOAD_BYTES)
    code.jump_unless(R0, 0, "out")
    for at, place in ((0, _LOCAL_PORT if leaves else _REMOTE_PORT), (2, _REMOTE_PORT if leaves else _LOCAL_PORT)):
        code.fetch(R1, FRAME, _PACKET + at, 2)
        code.put(FRAME, _AT + place, R1, 4)
    code.label("no ports")
    _flow_key(code, FLOW_IN)
    _unless_known(code, maps)
    if leaves:  # what a socket of UDP sends is told of where a process asks for it
        code.jump_if(R9, _SOCK_RAW, "tell")
        code.jump_if(R7, _UDP, "out")
        code.jump_if(R7, _UDP_LITE, "out")
    return _finish(code, maps)


def _headers(code: Trace, family: int, leaves: bool) -> None:
    """Addresses and protocol; R8: where the next header begins."""
    four = family == _INET
    size, source, target = (20, 12, 16) if four else (40, 8, 24)
    code.copy(R1, R6)
    code.set(R2, 0)
    code.frame(R3, _PACKET)
    code.set(R4, size)
    code.call(bpf.SKB_LOAD_BYTES)
    code.jump_unless(R0, 0, "out")
    code.set(R1, family)
    code.put(FRAME, _AT + _FAMILY, R1, 2)
    code.fetch(R1, FRAME, _PACKET + (9 if four else 6), 1)
    code.put(FRAME, _AT + _PROTOCOL, R1, 2)
    for at, place in ((source, _LOCAL if leaves else _REMOTE), (target, _REMOTE if leaves else _LOCAL)):
        for part in range(0, 4 if four else 16, 4):
            code.fetch(R1, FRAME, _PACKET + at + part, 4)
            code.put(FRAME, _AT + place + part, R1, 4)
    code.set(R8, 40)
    if not four:
        _pass_extensions(code)
    else:
        code.fetch(R1, FRAME, _PACKET + 6, 2)  # of a fragment only the first has ports
        code.mask(R1, int.from_bytes(b"\x1f\xff", "little" if _LITTLE else "big"))
        code.fetch(R7, FRAME, _AT + _PROTOCOL, 2)
        code.jump_unless(R1, 0, "no ports")
        code.fetch(R8, FRAME, _PACKET, 1)
        code.mask(R8, 15)
        code.shift_left(R8, 2)


def _pass_extensions(code: Trace) -> None:
    """Go on behind IPv6's headers of extension, by which a sender could else hide protocol and ports."""
    behind = code.fresh()
    for _ in range(_MOST):
        code.fetch(R7, FRAME, _AT + _PROTOCOL, 2)
        extension = code.fresh()
        for kind in _EXTENSIONS:
            code.jump_if(R7, kind, extension)
        code.jump(behind)
        code.label(extension)
        code.copy(R1, R6)
        code.copy(R2, R8)
        code.frame(R3, _PACKET)
        code.set(R4, 2)
        code.call(bpf.SKB_LOAD_BYTES)
        code.jump_unless(R0, 0, behind)
        code.fetch(R1, FRAME, _PACKET, 1)
        code.put(FRAME, _AT + _PROTOCOL, R1, 2)
        code.fetch(R1, FRAME, _PACKET + 1, 1)
        code.add(R1, 1)
        code.shift_left(R1, 3)
        code.add_of(R8, R1)
    code.label(behind)


_LITTLE = struct.pack("=H", 1) == b"\1\0"


def programs(maps: Maps) -> list[tuple[int, int, bytes]]:
    """All of them: type, attach type, code."""
    address = bpf.PROG_TYPE_CGROUP_SOCK_ADDR
    made: list[tuple[int, int, bytes]] = []
    asked: tuple[tuple[int, int, Callable[[Maps, int], bytes]], ...] = (
        (bpf.CGROUP_INET4_CONNECT, _INET, connect),
        (bpf.CGROUP_INET6_CONNECT, _INET6, connect),
        (bpf.CGROUP_UDP4_SENDMSG, _INET, send),
        (bpf.CGROUP_UDP6_SENDMSG, _INET6, send),
    )
    for attach_type, family, program in asked:
        made.append((address, attach_type, program(maps, family)))
    made.append((bpf.PROG_TYPE_SOCK_OPS, bpf.CGROUP_SOCK_OPS, states(maps)))
    made.append((bpf.PROG_TYPE_CGROUP_SKB, bpf.CGROUP_INET_INGRESS, packet(maps, False)))
    made.append((bpf.PROG_TYPE_CGROUP_SKB, bpf.CGROUP_INET_EGRESS, packet(maps, True)))
    return made
