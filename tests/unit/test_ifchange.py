"""Words of ifconfig(8) that are no numbers an interface could have."""

from __future__ import annotations

import pytest

from jailng.ctl import clone, ifchange
from jailng.errors import JailError, UsageError

ENDLESS = "9" * 5000  # more digits than int() takes


def test_numbers_of_any_length_are_bad_values() -> None:
    with pytest.raises(JailError, match=r"bad value \(width too large\)"):
        ifchange.parse(["inet", f"192.0.2.1/{ENDLESS}", "alias"])
    with pytest.raises(JailError, match="bad value"):
        ifchange.apply("lo", [("mtu", ENDLESS)])
    with pytest.raises(JailError, match="invalid vlan tag"):
        clone.create("vlan", ENDLESS, "lo")


def test_an_address_without_a_verb_is_ours_beside_freebsds_words() -> None:
    """As in exec.created of jails with vnet: ifconfig -j a epair0b 192.0.2.1/24 up descr jail:a."""
    address, *rest = ifchange.parse(["192.0.2.1/24", "up", "descr", "jail:a"])
    assert isinstance(address, ifchange.Change) and address.replace and address.prefix == 24
    assert rest == [("up", ""), ("descr", "jail:a")]


def test_an_address_without_a_verb_is_the_hosts_own_ifconfigs_where_it_has_one() -> None:
    for words in (["192.0.2.1/24", "up"], ["192.0.2.1", "netmask", "255.255.255.0", "mtu", "1400"], ["nonsense"]):
        with pytest.raises(UsageError):
            ifchange.parse(words)
    with pytest.raises(UsageError):
        ifchange.parse(["nonsense"], alone=True)
    address, up = ifchange.parse(["192.0.2.1/24", "up"], alone=True)
    assert isinstance(address, ifchange.Change) and address.replace and up == ("up", "")


def test_a_mac_address_is_ours_alone() -> None:
    """As in BastilleBSD's jail.conf and jib: ifconfig e0a_www ether 02:11:22:33:44:55. Linux's own says hw ether."""
    for word in ("ether", "lladdr", "link"):
        assert ifchange.parse([word, "02:11:22:33:44:55"]) == [(word, "02:11:22:33:44:55")]
    with pytest.raises(UsageError):
        ifchange.parse(["mtu", "1400"])
