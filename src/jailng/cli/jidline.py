"""A line of jail(8)'s -J."""

from __future__ import annotations

from jailng.params.values import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.params.model import Parameters


def line(jid: int, params: Parameters, old_style: bool = False) -> str:
    """Of the old form its five words, else the parameters that were given, as jail(8) quotes them."""
    if old_style:
        ips = ",".join([address.bare for name in ("ip4.addr", "ip6.addr") for address in params.addresses(name)])
        command = " ".join([quoted(word) for word in params.strings("command")])
        path, hostname = quoted(params.spelled("path")), quoted(params.text("host.hostname"))
        return "\t".join([str(jid), path, hostname, ips, command])
    given = [word for word in params.words(pseudo=True) if not word.startswith("jid=")]
    return "\t".join([f"jid={jid}", *given])
