"""What a bridge of the host's hands on by itself, from one of its ports to another, and nothing of the host's routes.

With br_netfilter, which Docker and others load, the kernel shows such a frame to the hooks of routing as if it came in
by the bridge and went out by it. The guard of core/firewall.py would so take the virtual machines on a bridge from each
other and from the LAN, as soon as a jail has an address on it. What is for the MAC address of the bridge, or of a port
by which it came, is none of these: the host would route it, and even where it goes back to the same bridge that is not
for others to have. (Ports that come later are not known: their machines could have the host lead something back.)
"""

from __future__ import annotations

from jailng.linux import nftables as nft
from jailng.linux import rtnetlink as rt
from jailng.linux.libc import ENODEV
from jailng.linux.netlink import Netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.linux.netlink import Message

EVERYWHERE = "all"  # instead of an interface's name
_NAME = 16


def spare(table: str, names: set[str]) -> list[Message]:
    """What lets frames pass that bridges of these names hand on; ``EVERYWHERE`` is all there are. Raises OSError.

    It stays for as long as the table does.
    """
    made = []
    for name, addresses in _bridges(names):
        key = name.encode("utf-8", "surrogateescape").ljust(_NAME, b"\0")
        made.append(nft.new_element(table, "bridged", key + key))
        made += [nft.new_element(table, "own", key + address.ljust(8, b"\0")) for address in addresses if address]
    return made


def is_known(netlink: Netlink, table: str) -> bool:
    """Whether the table has been made by a release that knows of bridges. ``netlink`` is of NETLINK_NETFILTER."""
    try:
        netlink.ask(nft.get_elements(table, "bridged"))
    except FileNotFoundError:
        return False
    return True


def _bridges(names: set[str]) -> list[tuple[str, list[bytes]]]:
    """Those of these interfaces that are bridges, with the MAC addresses of each and of its ports."""
    with Netlink() as netlink:
        if EVERYWHERE not in names and not any(_is_bridge(netlink, name) for name in names):
            return []
        links = [rt.Interface(body) for _, body in netlink.ask(rt.get_links())]
    return [
        (bridge.name, [link.address for link in links if bridge.index in (link.index, link.master)])
        for bridge in links
        if bridge.kind == "bridge" and (bridge.name in names or EVERYWHERE in names)
    ]


def _is_bridge(netlink: Netlink, name: str) -> bool:
    try:
        return rt.Interface(netlink.ask(rt.get_link(name=name))[0][1]).kind == "bridge"
    except OSError as error:
        if error.errno != ENODEV:
            raise
        return False
