"""What jails share on the host when the package is upgraded while they run."""

from __future__ import annotations

import re
from pathlib import Path

from jailng.core import renewal
from tests.kernel.conftest import Command
from tests.kernel.networks import Namespace, run

# As it was in November 2026, and what an administrator may have added.
_OLDER = """
delete table inet jailng
table inet jailng {
    counter spoofed {}
    counter denied {}
    counter unrouted {}
    set guarded { typeof meta nfproto . iifname; elements = { ipv4 . "ep0" } }
    set allowed { type inet_proto . inet_service; elements = { tcp . 2222 } }
    set everywhere { typeof meta nfproto; }
    chain prerouting {
        type filter hook prerouting priority raw
        iifname "jng*" fib saddr . iif oif missing counter name spoofed drop
    }
    chain input {
        type filter hook input priority filter
        iifname != "jng*" accept
        ct state established,related accept
        meta l4proto . th dport @allowed accept
        counter name denied drop
    }
    chain forward {
        type filter hook forward priority filter
        iifname "jng*" accept
        oifname "jng*" accept
        meta nfproto . iifname @guarded counter name unrouted drop
        meta nfproto @everywhere counter name unrouted drop
    }
}
"""


def _listed() -> str:
    return re.sub(r"packets \d+ bytes \d+|expires \S+", "", run("nft", "list", "table", "inet", "jailng"))


def test_a_table_of_an_older_release(lan: Namespace, jail: Command, small_root: Path, tmp_path: Path) -> None:
    place = (f"path={small_root}", "interface=ep0", "persist")
    assert jail("-c", "name=a", "ip4.addr=198.51.100.10", *place).returncode == 0
    made = _listed()
    older = tmp_path / "older"
    older.write_text(_OLDER)
    run("nft", "-f", str(older))
    judged = ("name=b", "ip4.addr=198.51.100.11", "ng.egress=pass to any", *place)
    assert "No such file or directory" in jail("-c", *judged).stderr
    renewal.renew()
    assert _listed().replace("elements = { tcp . 2222 }", "").split() == made.split()
    assert "tcp . 2222" in _listed()
    assert jail("-c", *judged).returncode == 0
    there = _listed()
    renewal.renew()
    assert _listed() == there
    for name in "ab":
        assert jail("-r", name).returncode == 0
