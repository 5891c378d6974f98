from __future__ import annotations

import posix

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailng.errors import JailError
from jailng.params.keys import fold
from jailng.params.model import Parameters, check_name
from jailng.params.table import lookup, names
from jailng.params.values import LIMITS


def made(*words: str, settle: bool = True) -> Parameters:
    """Parameters of words as on jail(8)'s command line."""
    parameters = Parameters()
    for word in words:
        name, sign, text = word.partition("=")
        parameters.add(name, text if sign else None)
    if settle:
        parameters.settle()
    return parameters


def refusal(*words: str) -> str:
    with pytest.raises(JailError) as caught:
        made(*words)
    return str(caught.value)


def running(*words: str, jid: int = 7) -> Parameters:
    parameters = made("name=web", "path=/srv/web", "persist", *words)
    parameters.identify(jid)
    return parameters


# What is there


def test_values_of_a_list_added_together() -> None:
    parameters = Parameters()
    parameters.add("exec.start", "a")
    parameters.extend("exec.start", ("b", "", "c"))
    parameters.extend("exec.start", ())
    parameters.extend("ip4.addr", ("10.0.0.2,10.0.0.1", "", "10.0.0.3"))
    assert parameters.strings("exec.start") == ("a", "b", "", "c")
    assert [address.bare for address in parameters.addresses("ip4.addr")] == ["10.0.0.2", "10.0.0.1", "10.0.0.3"]
    assert parameters.given("ip4.addr")
    for name in ("nosuch", "parent"):
        with pytest.raises(JailError, match=f"^unknown parameter: {name}$"):
            parameters.extend(name, ())
    with pytest.raises(JailError, match="not an IPv4 address: x"):
        parameters.extend("ip4.addr", ("10.0.0.4", "x"))
    assert len(parameters.addresses("ip4.addr")) == 3


def test_what_has_a_value_of_its_own_is_a_mapping() -> None:
    parameters = made("name=web", "ip4.addr=ep0|192.0.2.1/24", "persist")
    found = dict(parameters)
    (address,) = parameters.addresses("ip4.addr")
    assert found == {"name": "web", "ip4.addr": (address,), "persist": True, "ip4": "new"}
    assert str(address) == "ep0|192.0.2.1/24"


def test_defaults() -> None:
    empty = made()
    assert len(empty) == 0
    assert empty["ip4"] == "new"
    assert empty["sysvshm"] == "disable"
    assert empty.flag("allow.suser") is True
    assert empty.flag("allow.set_hostname") is False
    assert empty.number("stop.timeout") == 10
    assert empty.text("path") == "/"
    assert empty.addresses("ip4.addr") == ()
    assert empty.strings("exec.start") == ()
    with pytest.raises(KeyError):
        empty["no such thing"]


def test_order_is_that_of_first_giving() -> None:
    parameters = made("path=/a", "persist", "name=x", "path=/b", "nopersist")
    assert list(parameters) == ["path", "persist", "name"]
    assert parameters["path"] == "/b"
    assert parameters["persist"] is False


def test_given() -> None:
    parameters = made("ip4.addr=192.0.2.1", "host.hostname=h", "meta.a=1", settle=False)
    assert parameters.given("ip4.addr")
    assert parameters.given("meta.a")
    assert not parameters.given("ip4")
    parameters.settle()
    assert parameters["ip4"] == "new"
    assert parameters.given("meta")
    # What is implied has a value all the same, but nobody gave it.
    shared = made("allow.sysvipc")
    assert "sysvshm" in shared
    assert shared["sysvshm"] == "inherit"
    assert not shared.given("sysvshm")
    assert shared.given("allow.sysvipc")


def test_lists_grow_and_are_replaced() -> None:
    parameters = made(
        "exec.start=a", "exec.start=b", "ip4.addr=192.0.2.1", "ip4.addr=192.0.2.2,192.0.2.3", settle=False
    )
    assert parameters.strings("exec.start") == ("a", "b")
    assert [address.bare for address in parameters.addresses("ip4.addr")] == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    parameters.add("exec.start", "c", append=False)
    assert parameters.strings("exec.start") == ("c",)
    parameters.add("exec.start")
    assert parameters.strings("exec.start") == ()


def test_command_keeps_its_words() -> None:
    assert made("command=/bin/sh", "command=-c", "command=echo a, b").strings("command") == (
        "/bin/sh",
        "-c",
        "echo a, b",
    )


def test_set_takes_python_s_values() -> None:
    parameters = Parameters()
    parameters.set("persist", True)
    parameters.set("allow.suser", False)
    parameters.set("jid", 7)
    parameters.set("path", "/a")
    parameters.set("ip4.addr", ["192.0.2.1", "192.0.2.2"])
    parameters.set("exec.start", ["a", "b"])
    parameters.set("exec.start", ["c"])
    parameters.set("exec.stop", "d")
    parameters.set("vnet", "inherit")
    parameters.set("exec.clean", None)
    assert (parameters["persist"], parameters["allow.suser"], parameters["jid"]) == (True, False, 7)
    assert len(parameters.addresses("ip4.addr")) == 2
    assert parameters.strings("exec.start") == ("c",)
    assert parameters.strings("exec.stop") == ("d",)
    assert parameters.flag("exec.clean")


# What is refused


@pytest.mark.parametrize(
    "name", ["x", "ng.x", "nopath", "parent", "dying", "nodying", "children.cur", "cpuset.id", "meta."]
)
def test_unknown(name: str) -> None:
    assert refusal(name) == f"unknown parameter: {name}"
    assert refusal(f"{name}=1") == f"unknown parameter: {name}"


def test_an_unknown_name_cannot_steer_a_terminal() -> None:
    assert refusal("\x1b[2J=1") == "unknown parameter: \\x1b[2J"


@pytest.mark.parametrize("words", [("name=a", "name=a"), ("jid=3", "jid=4")])
def test_name_and_jid_are_given_once(words: tuple[str, str]) -> None:
    assert refusal(*words) == f'cannot redefine parameter "{words[0].partition("=")[0]}".'


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("osreldate=0", "osreldate cannot be 0"),
        ("osreldate=5", "osreldate: not honoured on Linux: Linux has no such number"),
        ("zfs.dataset=a", "zfs.dataset: not honoured on Linux: stock Linux has no ZFS"),
    ],
)  # fmt: skip
def test_not_honoured(word: str, message: str) -> None:
    assert refusal("name=x", word) == message


@pytest.mark.parametrize("name", [name for name in names() if (row := lookup(name)) is not None and row.refused])
def test_every_refusal_names_what_and_why(name: str) -> None:
    """Of each parameter that is not honoured a value besides its default."""
    parameter = lookup(name)
    assert parameter is not None
    usual = {"bool": ("true", "false"), "int": ("7",), "string": ("text",), "list": ("text",)}
    usually = str(parameter.default).lower()
    refused = [text for text in usual.get(parameter.kind, parameter.words) if text != usually]
    assert refused
    for text in refused:
        assert refusal(f"{name}={text}") == f"{name}: not honoured on Linux: {parameter.linux}"


@pytest.mark.parametrize("name", [name for name in names() if name.startswith("allow.")])
def test_what_changes_nothing_is_accepted(name: str) -> None:
    parameter = lookup(name)
    assert parameter is not None
    assert made(f"{name}={'true' if parameter.default else 'false'}")[name] is parameter.default
    if parameter.refused and parameter.default is False:
        assert refusal(name).startswith(f"{name}: not honoured ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("vnet ip4.addr=192.0.2.1", "vnet jails cannot have IP address restrictions"),
        ("vnet ip6=disable", "vnet jails cannot have IP address restrictions"),
        ("vnet ip4=inherit ip6=new", "vnet jails cannot have IP address restrictions"),
        ("vnet.interface=em0", "vnet.interface: only a jail with vnet has interfaces of its own"),
        ("securelevel=-2", "jail_set: Operation not permitted"),
        ("enforce_statfs=3", "enforce_statfs: 3 is not from 0 to 2"),
        ("enforce_statfs=-1", "enforce_statfs: -1 is not from 0 to 2"),
        ("devfs_ruleset=65536", "devfs_ruleset: 65536 is not from 0 to 65535"),
        ("osrelease=", "osrelease string must be 1-31 bytes long"),
        (f"osrelease={32 * '1'}", "osrelease string must be 1-31 bytes long"),
        (
            "host=inherit allow.set_hostname",
            "allow.set_hostname with host=inherit: on Linux nobody inside can change the host's name",
        ),
    ],
)
def test_what_no_jail_can_be(words: str, message: str) -> None:
    assert refusal(*words.split()) == message


@pytest.mark.parametrize(
    "word", ["securelevel=-1", "securelevel=0", "securelevel=3", "securelevel=99", "enforce_statfs=0", "host=inherit"]
)
def test_what_is_honoured_and_was_not_always(word: str) -> None:
    assert made(word).words(pseudo=False) == [word]


def test_the_host_s_names_or_one_s_own() -> None:
    """A name that is given is one's own, whatever host says; a jail that follows the host's gets one by a restart."""
    assert made("host=inherit", "host.hostname=web")["host"] == "new"
    following = running("host=inherit")
    for word in ("host.hostname=web", "host.hostuuid=1", "host=new"):
        with pytest.raises(JailError, match=r"^host cannot be changed after creation$"):
            following.update(made(word, settle=False))
    assert following.update(made("host=inherit", settle=False)) == []
    with pytest.raises(JailError, match=r"^host cannot be changed after creation$"):
        running().update(made("host=inherit", settle=False))


def test_no_ruleset_is_ruleset_4() -> None:
    jail = running()
    assert jail.update(made("devfs_ruleset=4", settle=False)) == ["devfs_ruleset"]
    assert jail.update(made("devfs_ruleset=0", settle=False)) == ["devfs_ruleset"]
    with pytest.raises(JailError, match=r"^devfs_ruleset cannot be changed after creation$"):
        jail.update(made("devfs_ruleset=5", settle=False))


def test_securelevel_of_a_running_jail() -> None:
    """The host may lower it again: kern_jail.c compares it to the parent's alone."""
    jail = running("securelevel=1")
    assert jail.update(made("securelevel=3", settle=False)) == ["securelevel"]
    assert jail.update(made("securelevel=-1", settle=False)) == ["securelevel"]
    with pytest.raises(JailError, match=r"^jail_set: Operation not permitted$"):
        jail.update(made("securelevel=-2", settle=False))


def test_what_is_the_default_anyhow_is_accepted() -> None:
    words = "vnet=inherit enforce_statfs=2 devfs_ruleset=4 children.max=0 securelevel=-1 ip4.saddrsel mount.procfs host"
    assert len(made(*words.split())) == 8
    assert made("mount=", "vnet.interface=").strings("mount") == ("",)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("name=a/b", 'name "a/b": contains "/"'),
        ("name=..", 'name "..": a part of it is empty'),
        ("name=a.", 'name "a.": a part of it is empty'),
        ("name=.a", 'name ".a": a part of it is empty'),
        ("name=a\nb", 'name "a\\x0ab": contains a control character'),
        ("name=a\x1bb", 'name "a\\x1bb": contains a control character'),
        ("name=a\x9bb", 'name "a\\x9bb": contains a control character'),
        ("name=a\u202eb", 'name "a\\u202eb": contains a control character'),
        ("name=a\u2028b", 'name "a\\u2028b": contains a control character'),
        ("name=a\u200fb", 'name "a\\u200fb": contains a control character'),
        ("name=" + "a" * 256, "name: File name too long"),
        ("name=" + "é" * 150, "name: File name too long"),
        ("name=42", "name cannot be numeric (unless it is the jid)"),
        ("name=a.42", "name cannot be numeric (unless it is the jid)"),
        ("name=-1", "name cannot be numeric (unless it is the jid)"),
        ("jid=-1", "negative jid"),
        ("jid=1000000", "jid 1000000: above 999999"),
        ("interface=a/b", 'interface: not the name of an interface: "a/b"'),
    ],
)
def test_names_and_numbers(word: str, message: str) -> None:
    assert refusal(word) == message


def test_numeric_names() -> None:
    assert made("jid=42", "name=42")["name"] == "42"
    assert refusal("jid=42", "name=042") == "name cannot be numeric (unless it is the jid)"
    assert refusal("jid=42", "name=43") == "name cannot be numeric (unless it is the jid)"


@pytest.mark.parametrize("name", ["web", "a.b", "42a", "a b", "ünï", "-x", "$(id)", "a" * 255, "\udcff", "1.x"])
def test_names_that_freebsd_has_too(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("ip6=inherit", "ip6=inherit without ip4=inherit: on Linux an IPv6 socket reaches IPv4 too (::ffff:0:0/96)"),
        (
            "ip6=inherit ip4=disable",
            "ip6=inherit without ip4=inherit: on Linux an IPv6 socket reaches IPv4 too (::ffff:0:0/96)",
        ),
        ("vnet.interface=ep0", "vnet.interface: only a jail with vnet has interfaces of its own"),
        ("vnet ip4=new", "vnet jails cannot have IP address restrictions"),
        ("vnet ip6.addr=2001:db8::1", "vnet jails cannot have IP address restrictions"),
        ("osrelease=", "osrelease string must be 1-31 bytes long"),
        ("ng.rdr=udp+any+80->80", "ng.rdr: the jail has no address to lead to"),
    ],
)
def test_what_does_not_go_together(words: str, message: str) -> None:
    assert refusal(*[word.replace("+", " ") for word in words.split()]) == message


@pytest.mark.parametrize(
    "words",
    [
        "ip4=inherit", "ip4=inherit ip6=inherit", "ip6=inherit ng.stack=shared", "vnet vnet.interface=ep0",
        "vnet ip4=inherit ip6=inherit", "osrelease=x", "ng.rdr=udp+any+80->80 ip6.addr=2001:db8::1",
        "ng.rdr=udp+any+80->80 ip4.addr=192.0.2.1", "ng.egress=none",
    ],
)  # fmt: skip
def test_what_goes_together(words: str) -> None:
    assert len(made(*[word.replace("+", " ") for word in words.split()])) >= 1


def test_jid_0_and_an_empty_name_are_no_wish() -> None:
    assert list(made("jid=0", "name=", "path=/")) == ["path"]


def test_identify() -> None:
    parameters = made("path=/")
    parameters.identify(12)
    assert (parameters["jid"], parameters["name"]) == (12, "12")
    assert not parameters.given("name")
    named = made("name=web", "jid=3")
    named.identify(3)
    assert (named["jid"], named["name"]) == (3, "web")
    assert named.given("jid")


# What follows


def test_addresses_imply_new_whatever_was_said() -> None:
    for word in ("ip4=inherit", "ip4=disable", "ip4"):
        assert made(word, "ip4.addr=192.0.2.1")["ip4"] == "new"
    assert made("ip6.addr=")["ip6"] == "new"
    assert made("host.hostid=3")["host"] == "new"


def test_the_first_address_stays_first_and_the_others_are_sorted() -> None:
    parameters = made("ip4.addr=192.0.2.9,192.0.2.100,192.0.2.20,10.0.0.1")
    assert [address.bare for address in parameters.addresses("ip4.addr")] == [
        "192.0.2.9", "10.0.0.1", "192.0.2.20", "192.0.2.100",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("ip4.addr=192.0.2.1,10.0.0.1,192.0.2.1/24", "ip4.addr: 192.0.2.1: given twice"),
        ("ip4.addr=0.0.0.0", "ip4.addr: 0.0.0.0: no address of a host"),
        ("ip4.addr=255.255.255.255", "ip4.addr: 255.255.255.255: no address of a host"),
        ("ip6.addr=::", "ip6.addr: ::: no address of a host"),
        ("ip6.addr=::1,::1", "ip6.addr: ::1: given twice"),
        ("ip4.addr=192.0.2.1 vhid 1", "ip4.addr: 192.0.2.1: vhid: not honoured on Linux: Linux has no CARP"),
        ("ip4.addr=" + ",".join([f"10.0.1.{i}" for i in range(256)]), "too many IPv4 addresses"),
        ("ip6.addr=" + ",".join([f"2001:db8::{i:x}" for i in range(1, 257)]), "too many IPv6 addresses"),
    ],
)
def test_addresses_that_no_jail_can_have(word: str, message: str) -> None:
    assert refusal(word) == message


def test_sharing_is_of_all_or_of_none() -> None:
    assert made("sysvmsg=new", "sysvsem=new", "sysvshm=new")["sysvmsg"] == "new"
    assert made("sysvmsg=inherit", "sysvsem=inherit", "sysvshm=inherit")["sysvmsg"] == "inherit"
    assert refusal("sysvshm=inherit", "sysvsem=new") == (
        "sysvshm=inherit: Linux shares all System V IPC or none: not without sysvmsg, sysvsem=inherit"
    )
    assert refusal("allow.sysvipc", "sysvshm=new").startswith("sysvmsg=inherit: Linux shares all")
    for one, other, address in (("ip4", "ip6", "::1"), ("ip6", "ip4", "192.0.2.1")):
        words = (f"{one}=inherit", f"{other}.addr={address}")
        assert refusal(*words) == f"{one}=inherit with {other}.addr: on Linux only with ng.stack=shared"
        assert made(*words, "ng.stack=shared")[one] == "inherit"
    assert made("ip4=inherit", "ip6=inherit")["ip6"] == "inherit"


# meta and env: the cases of FreeBSD's tests/sys/kern/jailmeta.sh


def test_keys() -> None:
    text = ""
    steps: list[tuple[list[tuple[str, str | None]], str]] = [
        ([("meta", "a=1")], "a=1"),
        ([("meta", "a=2\nb=3")], "a=2\nb=3"),
        ([("meta", "")], ""),
        ([("meta.a", "1")], "a=1"),
        ([("meta.c", "3"), ("meta.b", "2")], "b=2\nc=3\na=1"),
        ([("meta.a", "A"), ("meta.c", "C")], "c=C\na=A\nb=2"),
        ([("meta.a", "")], "a=\nc=C\nb=2"),
        ([("meta.b", None)], "a=\nc=C"),
        ([("meta.a", "1"), ("meta", "ttt"), ("meta.b", "2")], "b=2\nttt"),
        ([("meta.b", "=")], "b==\nttt"),
    ]
    for changes, expected in steps:
        text = fold(text, changes)
        assert text == expected


def test_a_key_is_a_whole_key() -> None:
    assert fold("ab=1\nb=2\nx b=3", [("env.b", "4")]) == "b=4\nab=1\nx b=3"
    assert fold("a.b=1\na=2", [("env.a.b", None)]) == "a=2"


def test_keys_on_a_command_line() -> None:
    parameters = made("meta=x", "meta.a=1", "env.k=v", "meta.b=2", "meta.a=3", "env.gone")
    assert parameters["meta"] == "b=2\na=3\nx"
    assert parameters["env"] == "k=v"
    assert made("meta")["meta"] == ""


def test_meta_has_a_limit() -> None:
    assert len(made("meta.a=" + "x" * 4093).text("meta")) == 4095
    assert refusal("meta.a=" + "x" * 4094) == "meta: File too large"
    assert refusal("meta=" + "x" * 4096) == "meta: File too large"
    assert refusal("env.a=" + "x" * 4096) == "env.a: File too large"


def test_the_limit_of_meta_is_the_host_s_and_what_is_there_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, "meta_maxbufsize", 4)
    assert refusal("meta=abcd") == "meta: File too large"
    assert made("meta=abc").text("meta") == "abc"
    there = Parameters.from_texts({"name": "a", "meta": "longer"})
    there.update(made("persist", settle=False))
    assert there.text("meta") == "longer"


# A jail that runs


def test_update() -> None:
    jail = running("meta.a=1", "allow.raw_sockets")
    changed = jail.update(made("jid=7", "allow.noraw_sockets", "allow.mlock", "meta.b=2", "exec.start=x", settle=False))
    assert changed == ["allow.raw_sockets", "meta", "allow.mlock"]
    assert jail["meta"] == "b=2\na=1"
    assert not jail.flag("allow.raw_sockets")
    assert "exec.start" not in jail


def test_update_may_repeat_what_is() -> None:
    jail = running("ip4.addr=192.0.2.1,10.0.0.1,10.0.0.2")
    words = (
        "name=web",
        "path=/srv/web",
        "ip4",
        "ip4.addr=192.0.2.1,10.0.0.2,10.0.0.1",
        "ng.uids=private",
        "vnet=inherit",
    )
    assert jail.update(made(*words, settle=False)) == []


def test_rename() -> None:
    jail = running()
    assert jail.update(made("jid=7", "name=mail", settle=False)) == ["name"]
    assert jail["name"] == "mail"
    assert jail.update(made("jid=7", "name=7", settle=False)) == ["name"]
    jail.update(made("jid=7", "name=mail", settle=False))
    change = made("jid=7", settle=False)
    change.set("name", "")
    assert (jail.update(change), jail["name"]) == (["name"], "7")
    with pytest.raises(JailError, match="name cannot be numeric"):
        jail.update(made("name=8", settle=False))


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("path=/other", "path"),
        ("vnet", "vnet"),
        ("ip4=inherit", "ip4"),
        ("ip6=inherit", "ip6"),
        ("osrelease=x", "osrelease"),
        ("ng.uids=shared", "ng.uids"),
        ("ip6.addr=2001:db8::7", "ip6.addr"),
        ("sysvshm=inherit", "sysvshm"),
        ("allow.sysvipc", "allow.sysvipc"),
        ("devfs_ruleset=5", "devfs_ruleset"),
        ("devfs_ruleset=3", "devfs_ruleset"),
    ],
)
def test_what_a_running_jail_keeps(word: str, name: str) -> None:
    jail = running()
    before = jail.to_lines()
    change = made("allow.mlock", word, settle=False)
    assert jail.restarts(change) == name
    with pytest.raises(JailError) as caught:
        jail.update(change)
    assert str(caught.value) == f"{name} cannot be changed after creation"
    assert jail.to_lines() == before


def test_no_addresses_of_a_family_takes_those_that_there_are() -> None:
    """To FreeBSD's kernel ``disable`` and ``new`` are one, a list of addresses: only that of IPv6 is fixed here."""
    jail = running("ip4.addr=192.0.2.1")
    assert jail.update(made("ip4=new", "ip6=disable", settle=False)) == ["ip6"]
    assert jail.addresses("ip4.addr")
    assert jail.update(made("ip4=disable", settle=False)) == ["ip4.addr"]
    assert not jail.addresses("ip4.addr")
    for address in ("192.0.2.2", "192.0.2.3"):
        assert jail.update(made("ip4=disable", f"ip4.addr={address}", settle=False)) == ["ip4.addr"]
        assert [one.text for one in jail.addresses("ip4.addr")] == [address]
    assert jail.update(made("ip4=disable", "ip4.addr=", settle=False)) == ["ip4.addr"]
    both = running("ip4.addr=192.0.2.1", "ip6.addr=2001:db8::1")
    assert both.update(made("ip4=disable", settle=False)) == ["ip4.addr"]
    without = running("ip4=disable")
    assert without.update(made("ip4=disable", settle=False)) == []
    assert without.update(made("ip4=new", settle=False)) == ["ip4"]
    assert without.update(made("ip4=disable", "ip4.addr=192.0.2.1", settle=False)) == ["ip4.addr"]
    jail = running("ip6.addr=2001:db8::1")
    with pytest.raises(JailError, match=r"^ip6 cannot be changed after creation$"):
        jail.update(made("ip6=disable", settle=False))
    jail.update(made("ip6=disable", "ip6.addr=2001:db8::1", settle=False))
    with pytest.raises(JailError, match=r"^ip6.addr cannot be changed after creation$"):
        jail.update(made("ip6=disable", "ip6.addr=", settle=False))


@pytest.mark.parametrize(
    ("jail", "word"),
    [
        ("vnet", "ip4=inherit"),
        ("vnet", "ip6=inherit"),
        ("vnet", "devfs_ruleset=5"),
        ("host=new", "devfs_ruleset=4"),
        ("host=new", f"osrelease={posix.uname().release}"),
        ("ng.stack=own", "ip4=new"),
    ],
)
def test_what_jls_says_of_a_running_jail_is_no_change(jail: str, word: str) -> None:
    """FreeBSD: rdtun_params in usr.sbin/jail/jail.c leaves out what is as it was."""
    there = running(jail)
    assert there.restarts(made(word, settle=False)) == ""
    there.update(made(word, settle=False))


@pytest.mark.parametrize("word", ["ip4=new", "ip4=disable", "ip6=new", "ip4.addr=192.0.2.1"])
def test_a_jail_with_vnet_has_no_addresses_of_the_hosts(word: str) -> None:
    jail = running("vnet")
    with pytest.raises(JailError, match=r"^vnet jails cannot have IP address restrictions$"):
        jail.update(made(word, settle=False))


@pytest.mark.parametrize(
    ("word", "change", "changed"),
    [
        ("ip4=inherit", "allow.mlock", ["allow.mlock"]),
        ("ng.stack=shared", "allow.mlock", ["allow.mlock"]),
        ("persist", "host.hostname=x", ["host.hostname"]),
        ("host.hostname=x", "host.hostname=", ["host.hostname"]),
        ("sysvshm=disable", "sysvshm=new", ["sysvshm"]),
        ("vnet", "devfs_ruleset=5", ["devfs_ruleset"]),
    ],
)
def test_what_may_change(word: str, change: str, changed: list[str]) -> None:
    jail = running(word)
    other = made(change, settle=False)
    assert jail.update(other) == changed
    assert [jail[name] for name in changed] == [other[name] for name in changed]


def test_the_rule_set_of_a_jail_with_vnet_is_another() -> None:
    with pytest.raises(JailError, match=r"^devfs_ruleset cannot be changed after creation$"):
        running("vnet").update(made("devfs_ruleset=4", settle=False))


def test_addresses_on_a_shared_stack_are_a_change_of_the_stack() -> None:
    jail = running("ip4=inherit", "ip6=inherit")
    with pytest.raises(JailError, match=r"^ip4 cannot be changed after creation$"):
        jail.update(made("ip4.addr=192.0.2.1", settle=False))


@pytest.mark.parametrize("name", ["allow.reserved_ports", "allow.suser"])
def test_ports_below_1024_of_the_host_s_stack_are_allowed_from_the_start(name: str) -> None:
    change = made(f"{name}=false", settle=False)
    assert running("ng.stack=shared").restarts(change) == name
    assert running("ip4=inherit").restarts(change) == ""
    assert running("ng.stack=shared", "allow.noreserved_ports").restarts(made("allow.nosuser", settle=False)) == ""


def test_a_refused_update_changes_nothing() -> None:
    jail = running()
    before = jail.to_lines()
    for word in ("osreldate=5", "name=a/b", "meta.k=" + "x" * 4095):
        with pytest.raises(JailError):
            jail.update(made("allow.mlock", word, settle=False))
        assert jail.to_lines() == before


# Its record


def test_lines() -> None:
    jail = made(
        "name=web", "path=/srv/a\\b", "meta=a\nb\tc", "ip4.addr=ep0|192.0.2.1/24", "persist", "exec.start=x", "depend="
    )
    assert jail.to_lines() == [
        "name=web",
        "path=/srv/a\\\\b",
        "ip4.addr=ep0|192.0.2.1/24",
        "persist=true",
        "meta=a\\nb\\x09c",
        "ip4=new",
    ]
    assert jail.to_lines(["path", "allow.suser"]) == ["path=/srv/a\\\\b", "allow.suser=true"]


LINE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NAME = LINE.filter(lambda text: "/" not in text)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "path": LINE.map(lambda text: "/" + text),
            "host.hostname": st.text(max_size=16).filter(lambda text: "\0" not in text),
            "meta": LINE,
            "env.key": LINE,
            "persist": st.sampled_from(["true", "false"]),
            "securelevel": st.just("-1"),
            "host.hostid": st.integers(0, 2**64 - 1).map(str),
            "ip4.addr": st.lists(st.ip_addresses(v=4, network="10.0.0.0/9"), unique=True, max_size=5).map(
                lambda ips: ",".join([f"ep0|{ip}/24" for ip in ips if int(ip) & 0xFFFFFF])
            ),
            "ip6.addr": st.lists(st.ip_addresses(v=6, network="2001:db8::/32"), unique=True, max_size=5).map(
                lambda ips: ",".join(map(str, ips))
            ),
            "sysvshm": st.sampled_from(["new", "disable"]),
            "ng.uids": st.sampled_from(["private", "shared"]),
            "allow.nosuser": st.sampled_from(["true", "false"]),
            "exec.start": LINE,
        },
    )
)
def test_record_round_trip(given_words: dict[str, str]) -> None:
    jail = Parameters()
    for name, text in given_words.items():
        jail.add(name, text)
    jail.settle()
    jail.identify(5)
    lines = jail.to_lines()
    again = Parameters.from_lines(lines)
    assert again.to_lines() == lines
    assert "\n".join(lines).splitlines() == lines
    for name in jail:
        parameter = lookup(name)
        assert parameter is not None
        assert parameter.pseudo or again[name] == jail[name]
    assert again.update(Parameters()) == []


def test_from_lines_refuses_what_to_lines_did_not_write() -> None:
    with pytest.raises(JailError, match="unknown parameter: x"):
        Parameters.from_lines(["x=1"])
    with pytest.raises(JailError, match="not an IPv4 address"):
        Parameters.from_lines(["ip4.addr=1"])


def test_a_lenient_jail_goes_without_permissions_that_linux_never_gives() -> None:
    params = Parameters()
    for word in ("ng.lenient", "allow.mount.zfs", "allow.raw_sockets", "allow.noquotas"):
        params.add(word)
    params.settle()
    assert params.left_out == ["allow.mount.zfs: not honoured on Linux: stock Linux has no ZFS"]
    assert [params.flag(name) for name in ("allow.mount.zfs", "allow.raw_sockets")] == [False, True]
    again = Parameters()
    again.add("allow.mount.zfs")
    assert params.restarts(again) == ""
    assert (params.update(again), params.left_out, params.flag("allow.mount.zfs")) == ([], params.left_out, False)
    assert len(params.left_out) == 1
    other = Parameters()
    other.add("allow.mount")
    assert params.restarts(other) == "allow.mount", "Linux gives it, and at the start alone"


@pytest.mark.parametrize("word, text", [("osreldate", "5"), ("exec.fib", "1"), ("allow.nosuch", None)])
def test_lenient_is_of_permissions_alone(word: str, text: str | None) -> None:
    params = Parameters()
    params.add("ng.lenient")
    with pytest.raises(JailError):
        params.add(word, text)
        params.settle()


@pytest.mark.parametrize(
    ("given", "told", "listed"),
    [
        ("persist", "persist", "persist"),
        ("persist=1", "persist=true", "persist=1"),
        ("nopersist=false", "nopersist=false", "nopersist=false"),
        ("allow.noraw_sockets=0", "allow.noraw_sockets=false", "allow.noraw_sockets=0"),
        ("vnet=inherit", "vnet=inherit", "vnet=inherit"),
        ("ip4", "ip4", "ip4"),
        ("securelevel=03", "securelevel=3", "securelevel=3"),
        ("ip4.addr=ep0|192.0.2.1/24", "ip4.addr=192.0.2.1", "ip4.addr=192.0.2.1"),
        ("meta.a=it's", 'meta.a="it\'s"', 'meta.a="it\'s"'),
        ("env.b", "env.b", "env.b"),
        ("exec.clean", "", "exec.clean"),
    ],
)
def test_what_was_given_is_told_as_it_was(given: str, told: str, listed: str) -> None:
    """-v has what the kernel was told (jailparam_export), -J what was given (print_jail)."""
    params = made(given)
    assert " ".join(params.words(pseudo=False)) == told
    assert " ".join(params.words(pseudo=True)) == listed


def test_what_is_set_at_creation_is_not_told_of_a_change() -> None:
    params = made("jid=3", "path=/", "ip4=new", "host.hostname=h", "allow.mlock")
    assert params.words(pseudo=False, live=True) == ["host.hostname=h", "allow.mlock"]


def test_each_value_of_a_list_has_its_quotes() -> None:
    params = made("exec.start=echo a", "exec.start=true", "command=it's")
    assert params.words(pseudo=True) == ['exec.start="echo a",true', 'command="it\'s"']
