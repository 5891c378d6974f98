"""What jails that run have of the host's as another release has made it, made anew as this one makes it.

The table of core/firewall.py stands for as long as there is a jail with an address, upgrades or not. Run when the
package is installed (package/compile).
"""

from __future__ import annotations

from jailng.core import firewall, index, policy
from jailng.errors import JailError
from jailng.linux import nftables as nft
from jailng.linux import nftrules as nfr


def renew() -> None:
    """Have the table be of this release, at one stroke; nothing where it is, or there is none. Raises OSError."""
    if not any(index.addressed()):  # in a chroot the jails are others'
        return
    with firewall.Netfilter() as netlink, firewall.Lock():
        try:
            there = nft.comment_of(netlink.ask(nfr.get_table(firewall.TABLE))[0][1])
        except FileNotFoundError:
            return
        switches = firewall.guarded(netlink)
        if there == firewall.FORM or switches is None:
            return
        # By name what the administrator may have added, and what the rules of jails' networks have.
        answers = netlink.ask(nft.get_elements(firewall.TABLE, "allowed"))
        allowed = [key for _, body in answers for key in nft.keys(body)]
        netlink.transaction(
            [
                nft.delete_table(firewall.TABLE),
                *firewall.table(),
                *firewall.guards(switches),
                *[nft.new_element(firewall.TABLE, "allowed", key) for key in allowed],
                *[nft.new_element(firewall.TABLE, "judged", key) for key in _judged()],
            ]
        )


def _judged() -> list[bytes]:
    try:
        return [key for one in policy.recorded(set()) for key in one.judged()]
    except JailError:
        return []  # of a record that this release cannot read the host is closed to the jail, which is the safe way
