from __future__ import annotations

import posix

import pytest

from jailng.core import get
from jailng.errors import JailError
from jailng.params.model import Parameters
from jailng.params.table import listed
from tests.fidelity.jails import Jail, Jails

WEB = Jail(
    7, "web", parent=3, path="/srv/web", ip4__addr="ep0|192.0.2.1/24,10.0.0.1", ip6__addr="2001:db8::1/64",
    persist="true", meta="a=2\nb=3\nb=4\nab=5", host__hostid="5", sysvshm="new", ip4="new",
)  # fmt: skip


def text(name: str, record: Jail = WEB) -> str | None:
    return get.text(record, get.column(name))


@pytest.mark.parametrize(
    ("name", "shown", "value"),
    [
        ("jid", "7", 7),
        ("name", "web", "web"),
        ("parent", "3", 3),
        ("dying", "false", False),
        ("cpuset.id", "7", 7),
        ("children.cur", "0", 0),
        ("path", "/srv/web", "/srv/web"),
        ("persist", "true", True),
        ("nopersist", "false", False),
        ("allow.nosuser", "false", False),
        ("allow.suser", "true", True),
        ("ip4", "new", "new"),
        ("ip6", "new", "new"),
        ("vnet", "inherit", "inherit"),
        ("ip4.addr", "192.0.2.1,10.0.0.1", None),
        ("ip6.addr", "2001:db8::1", None),
        ("sysvshm", "new", "new"),
        ("sysvsem", "disable", "disable"),
        ("host.hostid", "5", 5),
        ("host.hostuuid", "00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000000"),
        ("securelevel", "-1", -1),
        ("meta.a", "2", None),
        ("meta.b", "3", None),
        ("osreldate", "0", 0),
        ("ng.uids", "private", "private"),
    ],
)
def test_text_and_value(name: str, shown: str, value: object) -> None:
    assert text(name) == shown
    if value is not None:
        assert get.value(WEB, name) == value


def test_typed_addresses_keep_their_trimmings() -> None:
    value = get.value(WEB, "ip4.addr")
    assert isinstance(value, tuple)
    assert [item if isinstance(item, str) else item.text for item in value] == ["ep0|192.0.2.1/24", "10.0.0.1"]


def test_a_key_that_is_not_there() -> None:
    assert text("meta.c") is None
    assert text("env.a") is None
    assert text("env") == ""


def test_osrelease_is_the_host_s() -> None:
    assert text("osrelease") == posix.uname().release


def test_everything_is_what_the_table_lists() -> None:
    assert [asked.name for asked in get.everything()] == listed()


@pytest.mark.parametrize("name", ["x", "exec.start", "command", "allow", "lastjid", ""])
def test_what_no_jail_has(name: str) -> None:
    with pytest.raises(JailError) as caught:
        get.column(name)
    assert str(caught.value) == f"unknown parameter: {name}"


def test_find() -> None:
    registry = Jails(WEB, Jail(8, "gone", dying=True))
    assert get.find(registry, "web") is WEB
    assert get.find(registry, "7") is WEB
    assert get.find(registry, "007") is WEB
    assert get.find(registry, "gone", dying=True).jid == 8
    for asked, message in [
        ("x", 'jail "x" not found'),
        ("9", "jail 9 not found"),
        ("0", 'jail "0" not found'),
        ("7x", 'jail "7x" not found'),
        ("\u0667", 'jail "\u0667" not found'),
        ("9" * 30, f'jail "{"9" * 30}" not found'),
        ("a\n", 'jail "a\\x0a" not found'),
        ("gone", 'jail "gone" not found'),
        ("", 'jail "" not found'),
    ]:
        with pytest.raises(JailError) as caught:
            get.find(registry, asked)
        assert str(caught.value) == message
        assert caught.value.status == 1


def test_living() -> None:
    registry = Jails(WEB, Jail(8, "gone", dying=True))
    assert [record.jid for record in get.living(registry)] == [7]
    assert [record.jid for record in get.living(registry, dying=True)] == [7, 8]


def test_what_was_settled_is_what_is_read() -> None:
    parameters = Parameters()
    for word in (
        "name=web",
        "path=/srv/web",
        "ip4.addr=ep0|192.0.2.1/24",
        "host.hostname=h",
        "allow.nosuser",
        "meta.k=v\tw",
    ):
        name, sign, value = word.partition("=")
        parameters.add(name, value if sign else None)
    parameters.settle()
    parameters.identify(7)
    record = Jail(7, "web")
    for line in parameters.to_lines():
        name, _, value = line.partition("=")
        record.params[name] = value.replace("\\x09", "\t")
    for name in parameters:
        assert get.value(record, name) == parameters[name]
