"""``ip_hostname``: names are the host's, of its /etc/hosts here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jailng.engine import resolve
from jailng.errors import JailError
from jailng.params.model import Parameters
from tests.kernel.stage import MS_BIND, mount, unmount

HOSTS = "127.0.0.1 localhost\n192.0.2.7 cell.example cell\n2001:db8::7 cell.example\n192.0.2.8 four.example\n"


@pytest.fixture(autouse=True)
def hosts(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "hosts").write_text(HOSTS)
    (tmp_path / "nsswitch").write_text("hosts: files\n")
    mount(str(tmp_path / "hosts"), "/etc/hosts", None, MS_BIND)
    mount(str(tmp_path / "nsswitch"), "/etc/nsswitch.conf", None, MS_BIND)
    yield
    unmount("/etc/hosts")
    unmount("/etc/nsswitch.conf")


def resolved(*words: str) -> tuple[list[str], list[str]]:
    params = Parameters()
    for word in words:
        name, equals, text = word.partition("=")
        params.add(name, text if equals else None)
    resolve.add_addresses(params)
    four, six = ([address.bare for address in params.addresses(name)] for name in ("ip4.addr", "ip6.addr"))
    return four, six


def test_both_families() -> None:
    assert resolved("host.hostname=cell.example", "ip_hostname") == (["192.0.2.7"], ["2001:db8::7"])


def test_appended_and_not_twice() -> None:
    given = ("host.hostname=cell.example", "ip_hostname", "ip4.addr=192.0.2.1", "ip6.addr=2001:db8::7")
    assert resolved(*given) == (["192.0.2.1", "192.0.2.7"], ["2001:db8::7"])


def test_a_family_that_is_disabled() -> None:
    assert resolved("host.hostname=cell.example", "ip_hostname", "ip6=disable") == (["192.0.2.7"], [])
    assert resolved("host.hostname=four.example", "ip_hostname") == (["192.0.2.8"], [])


def test_not_asked_for() -> None:
    assert resolved("host.hostname=cell.example") == ([], [])
    assert resolved("ip_hostname") == ([], [])


def test_a_name_that_there_is_not() -> None:
    with pytest.raises(JailError) as raised:
        resolved("host.hostname=none.example", "ip_hostname")
    assert str(raised.value) == "host.hostname none.example: Name or service not known"
