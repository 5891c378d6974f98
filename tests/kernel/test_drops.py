"""jailctl drops: what of each jail the host has dropped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Command
from tests.kernel.networks import attach, ip, run

HOST, JAIL, OTHER = "198.51.100.1", "198.51.100.10", "198.51.100.11"


@pytest.fixture
def addresses() -> Iterator[None]:
    with attach("ep0", (f"{HOST}/24", "2001:db8:1::1/64"), ("198.51.100.2/24", "2001:db8:1::2/64")):
        ip(f"address add {JAIL}/24 dev ep0", f"address add {OTHER}/24 dev ep0")
        yield


@pytest.mark.usefixtures("addresses")
def test_jailctl_tells_of_it(jail: Command, small_root: Path, checkout: Path) -> None:
    """The counters are shown by jail."""
    for name, address in (("one", JAIL), ("two", OTHER)):
        done = jail("-c", f"name={name}", f"path={small_root}", f"ip4.addr={address}", "persist")
        assert (done.returncode, done.stderr) == (0, "")

    def told(*words: str) -> str:
        return run(f"{checkout}/bin/jailctl", "drops", *words)

    try:
        assert {line.split()[-1]: line.split()[1:3] for line in told().splitlines()[1:3]} == {
            "one": ["0", "0"],
            "two": ["0", "0"],
        }
        for _ in range(2):
            run(f"{checkout}/bin/jexec", "two", "/bin/busybox", "sh", "-c", f"nc -w 1 {HOST} 22 </dev/null || true")
        known = json.loads(told("--json"))
        counted = {found["name"]: (found["forged"], found["denied"]) for found in known["jails"]}
        assert counted["one"] == (0, 0)
        assert counted["two"][0] == 0
        assert counted["two"][1] >= 2  # a SYN may have been sent again
        assert (known["denied"], known["forged"], known["unrouted"]) == (counted["two"][1], 0, 0)
        assert told("two").splitlines()[1].split()[1:] == ["0", str(counted["two"][1]), "two"]
        assert "of all" not in told("two")
    finally:
        for name in ("one", "two"):
            jail("-r", name)
    assert told().splitlines()[0].split() == ["JID", "FORGED", "DENIED", "JAIL"]
