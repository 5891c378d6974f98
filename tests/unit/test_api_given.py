"""Parameters as Python gives them: names resolved through the table, values as jail(8) has them."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from subprocess import DEVNULL

import pytest
from hypothesis import given as cases
from hypothesis import strategies as st

from jailng.api import given
from jailng.api.command import Command, Pipes
from jailng.api.jail import Jail
from jailng.core.wire import Words, as_memfd, from_memfd, pack, pairs
from jailng.errors import JailError
from jailng.params import table


def test_every_parameter_has_a_keyword_of_its_own() -> None:
    names = table.names()
    assert len({name.replace(".", "_") for name in names}) == len(names)
    for name in names:
        parameter = table.lookup(name)
        assert parameter is not None
        value = {"bool": True, "int": 1, "ip4": ["192.0.2.1"], "ip6": ["2001:db8::1"], "list": ["a"]}.get(
            parameter.kind, "a"
        )
        assert set(given.resolve({name: value})) == set(given.resolve({name.replace(".", "_"): value})) == {name}


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ({"ip4_addr": ["192.0.2.1", "192.0.2.2"]}, {"ip4.addr": ["192.0.2.1", "192.0.2.2"]}),
        ({"ip4.addr": "192.0.2.1,192.0.2.2"}, {"ip4.addr": ["192.0.2.1,192.0.2.2"]}),
        ({"ip4_addr": ipaddress.ip_address("192.0.2.1")}, {"ip4.addr": ["192.0.2.1"]}),
        ({"ip6_addr": [ipaddress.ip_address("2001:db8::1")]}, {"ip6.addr": ["2001:db8::1"]}),
        ({"ip4_addr": []}, {"ip4.addr": [""]}),
        ({"allow_raw_sockets": True, "allow.mlock": False}, {"allow.raw_sockets": ["true"], "allow.mlock": ["false"]}),
        ({"allow.noraw_sockets": True, "nopersist": False}, {"allow.raw_sockets": ["false"], "persist": ["true"]}),
        ({"host_hostname": "www", "ng_uids": "shared"}, {"host.hostname": ["www"], "ng.uids": ["shared"]}),
        ({"devfs_ruleset": 4, "exec_timeout": 7}, {"devfs_ruleset": ["4"], "exec.timeout": ["7"]}),
        ({"exec_start": "a b"}, {"exec.start": ["a b"]}),
        ({"exec_start": ("a b", "c")}, {"exec.start": ["a b", "c"]}),
        ({"exec_start": []}, {"exec.start": []}),
        ({"path": Path("/a")}, {"path": ["/a"]}),
        ({"path": b"/\xff"}, {"path": ["/\udcff"]}),
        ({"meta_key": "v", "env.other": 1}, {"meta.key": ["v"], "env.other": ["1"]}),
        ({"name": None}, {}),
        ({"vnet": True, "sysvshm": True, "ip4": "inherit"}, {"vnet": ["new"], "sysvshm": ["new"], "ip4": ["inherit"]}),
    ],
)
def test_names_and_values(parameters: dict[str, object], found: dict[str, list[str]]) -> None:
    assert given.resolve(parameters) == found


def test_a_jailsys_that_is_true_is_new() -> None:
    assert given.check(given.resolve({"vnet": True, "persist": True}))["vnet"] == "new"
    with pytest.raises(JailError, match=r'^vnet: unknown jailsys value "false"$'):
        given.parse(given.resolve({"vnet": False}))


def test_bytes_are_the_same_in_a_locale_that_is_not_utf_8(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes to the worker, and into records, is in UTF-8 whatever the program's locale is."""
    monkeypatch.setattr(os, "fsencode", lambda word: word if isinstance(word, bytes) else word.encode("latin-1"))
    monkeypatch.setattr(os, "fsdecode", lambda word: word.decode("latin-1") if isinstance(word, bytes) else word)
    assert given.resolve({"path": b"/\xc3\xa9", "host_hostname": "é"}) == {"path": ["/é"], "host.hostname": ["\udce9"]}
    command = Command((1, "1 1"), ["é", b"\xc3\xa9"], {"A": "é"}, b"/\xff", None)
    packet = command.packet(Pipes(DEVNULL, DEVNULL, DEVNULL))
    assert packet.split(b"\0")[-6:] == [b"2", b"\xe9", b"\xc3\xa9", b"2", b"A", b"\xe9"]
    assert b"/\xff" in packet.split(b"\0")


def test_the_later_of_two_counts() -> None:
    assert given.resolve({"ip4.addr": ["192.0.2.1"]}, {"ip4_addr": ["192.0.2.2"]}) == {"ip4.addr": ["192.0.2.2"]}
    assert given.resolve({"persist": True}, {"nopersist": True}) == {"persist": ["false"]}


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"ip4addr": "192.0.2.1"}, "unknown parameter: ip4addr"),
        ({"jid": 1, "parent": 2}, "unknown parameter: parent"),
        ({"ip4_addr": ["192.0.2.256"]}, "ip4.addr: not an IPv4 address: 192.0.2.256"),
        ({"persist": "maybe"}, 'persist: unknown boolean value "maybe"'),
        ({"name": "12"}, "name cannot be numeric (unless it is the jid)"),
        ({"vnet_interface": ["em0"]}, "vnet.interface: only a jail with vnet has interfaces of its own"),
    ],
)
def test_what_no_jail_can_have(parameters: dict[str, object], sentence: str) -> None:
    with pytest.raises(JailError) as caught:
        Jail(parameters)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("parameters", [{"path": ["/a"]}, {"nopersist": "yes"}, {"host_hostname": {"a": 1}}])
def test_what_is_no_value(parameters: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        Jail(parameters)


def test_a_jail_that_has_not_been_started() -> None:
    jail = Jail(path="/", name="www")
    assert (jail.name, jail.alive, jail.keep, repr(jail)) == ("www", False, False, "<jailng.Jail 'www' not started>")
    assert Jail(path="/").name == ""
    for use in (lambda: jail.jid, jail.stop, jail.remove, lambda: jail.run(["/bin/true"]), lambda: jail.parameters):
        with pytest.raises(JailError, match=r"^the jail has not been started$"):
            use()


def test_it_persists_unless_told_otherwise() -> None:
    assert Jail(path="/")._given["persist"] == ["true"]
    assert Jail(path="/", persist=False, exec_start="a")._given["persist"] == ["false"]
    assert Jail({"nopersist": True, "exec.start": "a"})._given["persist"] == ["false"]


_WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.binary().map(
    lambda data: data.replace(b"\0", b"").decode("utf-8", "surrogateescape")
)


@cases(st.lists(_WORDS), _WORDS, st.integers())
def test_what_is_packed_is_read(listed: list[str], word: str, number: int) -> None:
    words = Words(from_memfd(as_memfd(pack(word, listed, number, listed))))
    assert (words.word(), words.words(), words.number(), words.words()) == (word, listed, number, listed)


def test_no_word_has_a_nul() -> None:
    with pytest.raises(ValueError, match="null byte"):
        pack("a", ["b\0c"])


def test_pairs() -> None:
    assert list(pairs(["a", "1", "b", "2"])) == [("a", "1"), ("b", "2")]
