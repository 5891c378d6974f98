"""What connection tracking knows of connections that other rules hold for by now: it is told to forget them.

Rules of nf_tables are asked by what conntrack takes for the first packet of a connection, and by no later one.
"""

from __future__ import annotations

from jailng.linux import ctnetlink
from jailng.linux import rtnetlink as rt
from jailng.linux.netlink import Netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from jailng.core.forward import Lead


def forget(
    netlink: Netlink, cut: Sequence[Lead], senders: Sequence[bytes], targets: Sequence[bytes], datagrams: Sequence[Lead]
) -> None:
    """Forget connections that were led by ``cut`` or to ``targets``, or begun by ``senders``.

    One that is allowed goes on: its next packet is taken for the first. So is then that of a client who has sent from
    one port all the time, to the host, what ``datagrams`` lead to a jail. ``netlink`` is of NETLINK_NETFILTER. Each
    look through all that the host has takes milliseconds. Raises OSError.
    """
    gone = [one for address in senders for one in ctnetlink.of_source(netlink, address, answering=False)]
    for address in {*targets, *[lead.target for lead in cut]}:
        for one in ctnetlink.of_source(netlink, address, answering=True):
            began, led = _begun(one)
            port = ctnetlink.Ends(one[ctnetlink.REPLY]).source_port
            led_there = [lead for lead in cut if lead.port_for(began.destination_port) == port]
            if led and (address in targets or any(lead.has_led(began) for lead in led_there)):
                gone.append(one)
    own = _own_addresses() if datagrams else set()
    for lead in datagrams:
        low, high = lead.rule.ports
        for one in ctnetlink.of_datagrams(netlink, lead.family, low if low == high else 0):
            began, led = _begun(one)
            if not led and began.destination in own and lead.has_led(began):
                gone.append(one)
    ctnetlink.forget(netlink, gone)


def _begun(entry: ctnetlink.Entry) -> tuple[ctnetlink.Ends, bool]:
    """Where a connection was to go, and whether it was led elsewhere."""
    began, answers = ctnetlink.Ends(entry[ctnetlink.ORIGINAL]), ctnetlink.Ends(entry[ctnetlink.REPLY])
    return began, (began.destination, began.destination_port) != (answers.source, answers.source_port)


def _own_addresses() -> set[bytes]:
    with Netlink() as netlink:
        return {
            rt.Address.read(body).packed
            for family in (rt.AF_INET, rt.AF_INET6)
            for _, body in netlink.ask(rt.get_addresses(family))
        }
