"""Whether the kernel has what networks of jails take: it is tried, in a network namespace that is gone afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from jailng.core import firewall
from jailng.ctl.diagnosis import Finding, Jails
from jailng.linux import nftables as nft
from jailng.linux import ns
from jailng.linux import rtnetlink as rt
from jailng.linux.netlink import NETLINK_NETFILTER, Netlink

_TABLE = "jailng_doctor"


def _rule(*expressions: bytes) -> None:
    chain = nft.new_chain(_TABLE, "one", nft.PREROUTING, nft.RAW)
    with Netlink(NETLINK_NETFILTER) as netlink:
        netlink.transaction([nft.new_table(_TABLE), chain, nft.new_rule(_TABLE, "one", *expressions)])
        netlink.transaction([nft.delete_table(_TABLE)])


def _whole() -> None:
    with Netlink(NETLINK_NETFILTER) as netlink:
        netlink.transaction(firewall.table())


def _veth() -> None:
    with Netlink() as netlink:
        netlink.batch([rt.new_pair("one", "two")])


def _subtrees() -> None:
    if not os.path.exists("/proc/net/if_inet6"):
        return
    with Netlink() as netlink:
        netlink.batch([rt.set_link(1, up=True)])
        route = rt.Route(1, bytes(15) + b"\2", 128, rt.RT_TABLE_LOCAL, 3, source=(b"\x80" + bytes(15), 1))
        netlink.batch([route.prepended()])


def _rules() -> None:
    with Netlink() as netlink:
        netlink.batch([rt.new_rule(bytes([192, 0, 2, 1]), 1000)])


# What is tried, in this order, and what the kernel needs for it; the first of two that hang together tells.
_TRIED: list[tuple[str, str, Callable[[], None]]] = [
    ("nf_tables", "CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET", lambda: _rule(nft.verdict(nft.ACCEPT))),
    ("nf_tables: fib", "CONFIG_NFT_FIB_INET", lambda: _rule(*nft.no_way_back())),
    ("nf_tables: ct", "CONFIG_NFT_CT", lambda: _rule(*nft.connection_state(nft.ESTABLISHED))),
    ("nf_tables: the table of jailng as a whole", "nf_tables of Linux 6.1 or later", _whole),
    ("veth", "CONFIG_VETH", _veth),
    ("IPv6 routes by source", "CONFIG_IPV6_SUBTREES", _subtrees),
    ("rules of routing", "CONFIG_IP_MULTIPLE_TABLES", _rules),
]


def check(_: Jails) -> Iterator[Finding]:
    """What this kernel lacks."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(tell, "\n".join(_lacking()).encode())
        finally:
            os._exit(0)
    os.close(tell)
    with os.fdopen(told) as answers:
        lines = answers.read().splitlines()
    os.waitpid(pid, 0)
    for line in lines:
        what, needed, why = line.split("\t")
        yield Finding(f"{what}: {why}: the kernel needs {needed}")


def _lacking() -> Iterator[str]:
    try:
        ns.unshare(ns.CLONE_NEWNET)
    except OSError as error:
        yield f"network namespaces\tCONFIG_NET_NS\t{error.strerror}"
        return
    for what, needed, attempt in _TRIED:
        try:
            attempt()
        except OSError as error:
            yield f"{what}\t{needed}\t{error.strerror}"
