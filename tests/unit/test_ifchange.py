"""Words of ifconfig(8) that are no numbers an interface could have."""

from __future__ import annotations

import pytest

from jailng.ctl import clone, ifchange
from jailng.errors import JailError

ENDLESS = "9" * 5000  # more digits than int() takes


def test_numbers_of_any_length_are_bad_values() -> None:
    with pytest.raises(JailError, match=r"bad value \(width too large\)"):
        ifchange.parse(["inet", f"192.0.2.1/{ENDLESS}", "alias"])
    with pytest.raises(JailError, match="bad value"):
        ifchange.apply("lo", [("mtu", ENDLESS)])
    with pytest.raises(JailError, match="invalid vlan tag"):
        clone.create("vlan", ENDLESS, "lo")
