"""``ip_hostname``, jail(8)'s -h: the addresses of the host name, as the host resolves it. Loaded by who asks for them.

FreeBSD: check_intparams in usr.sbin/jail/config.c.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, SOCK_STREAM, gaierror, getaddrinfo

from jailng.errors import JailError
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.params.model import Parameters

_FAMILIES = {AF_INET: "ip4", AF_INET6: "ip6"}


def add_addresses(params: Parameters) -> None:
    """Append the addresses of ``host.hostname`` to ``ip4.addr`` and ``ip6.addr``, where ``ip_hostname`` asks for that.

    Before ``Parameters.settle``. A family that the jail has none of, or the host's, is left out. Raises JailError where
    the name cannot be resolved.
    """
    name = params.text("host.hostname")
    if not params.flag("ip_hostname") or not name:
        return
    try:  # bytes: a str would load encodings.idna
        found = getaddrinfo(name.encode("utf-8", "surrogateescape"), None, 0, SOCK_STREAM)
    except gaierror as error:
        raise JailError(f"host.hostname {visible(name)}: {error.strerror}") from None
    for family, _, _, _, address in found:
        kind = _FAMILIES.get(family)
        text = str(address[0])
        if kind is None or "%" in text or (params.given(kind) and params[kind] != "new"):
            continue
        if text not in [known.bare for known in params.addresses(f"{kind}.addr")]:
            params.add(f"{kind}.addr", text)
