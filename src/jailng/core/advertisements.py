"""Router advertisements, which an interface that forwards IPv6 takes no longer, before Linux 6.17.

Such kernels forward IPv6 for all interfaces or none. Loaded where they have to begin with it.
"""

from __future__ import annotations

import posix

from jailng.core import firewall
from jailng.errors import JailError


def check() -> None:
    """Whether the host can forward IPv6 without harm to itself. Raises JailError where it cannot."""
    why = "this kernel forwards IPv6 for all interfaces or none (Linux 6.17 can for one)"
    fd = posix.open("/proc/net/if_inet6", posix.O_RDONLY | posix.O_CLOEXEC)
    text = bytearray()
    while part := posix.read(fd, 65536):
        text += part
    posix.close(fd)
    # As bytes, since to str U+0085 is the end of a line, too.
    names = {line.split()[-1].decode(errors="surrogateescape") for line in text.split(b"\n") if line}
    names = {name for name in names if name != "lo" and not name.startswith(firewall.JAILS.decode())}
    deaf = sorted([name for name in names if firewall.read_switch(f"ipv6/conf/{name}/accept_ra") == 1])
    if deaf:
        raise JailError(
            f"ip6.addr: {why}, and then {', '.join(deaf)} would no longer take router advertisements: set "
            f"net.ipv6.conf.{deaf[0]}.accept_ra to 2, or to 0 where none are expected"
        )
    routers = sorted([name for name in names if firewall.read_switch(f"ipv6/conf/{name}/forwarding")])
    if routers:
        raise JailError(
            f"ip6.addr: {why}, and {', '.join(routers)} is set apart: set net.ipv6.conf.all.forwarding to 1"
        )
