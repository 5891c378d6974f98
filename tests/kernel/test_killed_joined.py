"""A command is killed that makes, or takes apart, one of two jails of one address: the other goes on regardless."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel import faults
from tests.kernel.conftest import Command
from tests.kernel.networks import Namespace, attach, ip, run

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace(1)")
ADDRESS = "198.51.100.10"
_STRIDE = 2 * faults.STRIDE if faults.STRIDE > 1 else 1  # each step takes four commands
_SERVE = "sh -c 'nc -ll -p {0} -e hostname </dev/null >/dev/null 2>&1 & until netstat -ltn | grep -q :{0}; do :; done'"


@pytest.fixture
def lan() -> Iterator[Namespace]:
    with attach("ep0", ("198.51.100.1/24", "2001:db8:1::1/64"), ("198.51.100.2/24", "2001:db8:1::2/64")) as made:
        ip(f"address add {ADDRESS}/24 dev ep0")
        yield made


def _words(root: Path, name: str, port: int) -> list[str]:
    serve = f"exec.start={_SERVE.format(port)}"
    return ["-c", f"name={name}", f"path={root}", f"host.hostname={name}", serve, f"ip4.addr={ADDRESS}", "persist"]


def _led() -> tuple[str, str]:
    """What leads to the address."""
    return run("ip", "route", "show", "table", "local", ADDRESS), run("ip", "neighbour", "show", "proxy")


def test_the_making_of_the_second(
    lan: Namespace, jail: Command, checkout: Path, small_root: Path, tmp_path: Path
) -> None:
    before = _led()
    assert jail(*_words(small_root, "one", 80)).returncode == 0
    alone, second = _led(), _words(small_root, "two", 81)
    steps = faults.steps(tmp_path / "trace", f"{checkout}/bin/jail", *second)
    jail("-r", "two")
    for step in steps[::_STRIDE]:
        faults.run(step, "signal=SIGKILL", f"{checkout}/bin/jail", *second)
        assert lan.said(ADDRESS, 80) == "one", step
        jail("-r", "two")
        again = jail(*second)
        assert (again.returncode, again.stderr) == (0, ""), step
        assert (lan.said(ADDRESS, 80), lan.said(ADDRESS, 81)) == ("one", "two"), step
        assert jail("-r", "two").returncode == 0, step
        assert _led() == alone, step
    assert jail("-r", "one").returncode == 0
    assert _led() == before


def test_the_end_of_the_first(lan: Namespace, jail: Command, checkout: Path, small_root: Path, tmp_path: Path) -> None:
    before = _led()
    first, second = _words(small_root, "one", 80), _words(small_root, "two", 81)
    assert [jail(*words).returncode for words in (first, second)] == [0, 0]
    steps = faults.steps(tmp_path / "trace", f"{checkout}/bin/jail", "-r", "one")
    for step in steps[::_STRIDE]:
        assert lan.said(ADDRESS, 81) == "two", step
        again = jail(*first)
        assert (again.returncode, again.stderr) == (0, ""), step
        faults.run(step, "signal=SIGKILL", f"{checkout}/bin/jail", "-r", "one")
        assert lan.said(ADDRESS, 81) == "two", step
        jail("-r", "one")
    assert lan.said(ADDRESS, 81) == "two"
    assert jail("-r", "two").returncode == 0
    assert jail("-c", "path=/", "command=/bin/true").returncode == 0  # a start sweeps what the killed have left
    assert _led() == before
