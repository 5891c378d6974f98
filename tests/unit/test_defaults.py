"""/etc/jailng.conf: what its lines say, what they may not, and where a jail's own parameters have the word."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailng.engine.defaults import apply, parse
from jailng.errors import JailError
from jailng.params.model import Parameters
from jailng.params.values import show


def values(text: str) -> dict[str, str]:
    defaults = parse(text)
    return {name: show(defaults[name]) for name in defaults}


def made(text: str, *words: str) -> Parameters:
    """The parameters of a new jail with these words on its command line, where the file says ``text``."""
    params = Parameters()
    for word in words:
        name, sign, value = word.partition("=")
        params.add(name, value if sign else None)
    params.assume(parse(text))
    params.settle()
    return params


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("\n  # a remark\n\n", {}),
        ("ng.uids = shared", {"ng.uids": "shared"}),
        ("ng.uids=shared;", {"ng.uids": "shared"}),
        ("ng.stack = shared", {"ng.stack": "shared"}),
        ("  ng.uids  =  shared ;  # a remark", {"ng.uids": "shared"}),
        ("allow.raw_sockets", {"allow.raw_sockets": "true"}),
        ("allow.raw_sockets;", {"allow.raw_sockets": "true"}),
        ("allow.raw_sockets # ping\r", {"allow.raw_sockets": "true"}),
        ("allow.noreserved_ports", {"allow.reserved_ports": "false"}),
        ("allow.raw_sockets = false", {"allow.raw_sockets": "false"}),
        ("interface = 'ep0'", {"interface": "ep0"}),
        ('exec.prestart = "a \\"b\\"\\tc"', {"exec.prestart": 'a "b"\tc'}),
        ("exec.prestart = 'echo $HOME # \\' \\n'", {"exec.prestart": "echo $HOME # ' \\n"}),
        ("exec.prestart = a, 'b c', d", {"exec.prestart": "a,b c,d"}),
        ("exec.prestart = a\nexec.prestart += b", {"exec.prestart": "a,b"}),
        ("exec.prestart = a\nexec.prestart = b", {"exec.prestart": "b"}),
        ("exec.prestart = a\nexec.prestart", {"exec.prestart": ""}),
        ("interface = a\ninterface = b", {"interface": "b"}),
    ],
)
def test_lines(text: str, expected: dict[str, str]) -> None:
    assert values(text) == expected


@pytest.mark.parametrize("head", ["jail", "security.jail"])
@pytest.mark.parametrize(
    ("sysctl", "name", "value"),
    [
        ("set_hostname_allowed=1", "allow.set_hostname", True),
        ("set_hostname_allowed = 0", "allow.set_hostname", False),
        ("sysvipc_allowed=1", "allow.sysvipc", True),
        ("socket_unixiproute_only=0", "allow.socket_af", True),
        ("socket_unixiproute_only=1", "allow.socket_af", False),
        ("allow_raw_sockets=1", "allow.raw_sockets", True),
        ("chflags_allowed=0", "allow.chflags", False),
        ("mount_allowed=0", "allow.mount", False),
        ("mount_devfs_allowed=0", "allow.mount.devfs", False),
        ("enforce_statfs=2", "enforce_statfs", 2),
        ("devfs_ruleset=4", "devfs_ruleset", 4),
    ],
)
def test_sysctls_of_freebsd_and_of_2001(head: str, sysctl: str, name: str, value: object) -> None:
    assert parse(f"{head}.{sysctl}")[name] == value


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("nonsense = 1", "unknown parameter: nonsense"),
        ("security.jail.jailed = 0", "unknown parameter: security.jail.jailed"),
        ("dying", "unknown parameter: dying"),
        ("= 1", '"= 1": not NAME = VALUE'),
        ("ng.uids shared", '"ng.uids shared": not NAME = VALUE'),
        ("ng.uids =", "ng.uids: no value"),
        ("ng.uids = shared private", "ng.uids: private: does not belong to the value: quote it if it does"),
        ("ng.uids = shared; persist", "ng.uids: persist: does not belong to the value: quote it if it does"),
        ("persist; ng.uids = shared", 'persist: after ";" a line ends'),
        ("ng.uids = shared, private", "ng.uids: takes one value"),
        ("ng.uids = 'shared", "ng.uids: no quote at its end"),
        ("ng.uids = some", 'ng.uids: unknown value "some"'),
        ("exec.prestart = $x", "exec.prestart: $x: wants quotes"),
        ('exec.prestart = "$x"', "exec.prestart: there are no variables here: write $ in single quotes"),
        ("allow.raw_sockets = maybe", 'allow.raw_sockets: unknown boolean value "maybe"'),
        ("stop.timeout = 3", "stop.timeout: is for who removes a jail to say and has no default"),
        ("security.jail.sysvipc_allowed", "security.jail.sysvipc_allowed: a number is wanted, as sysctl(8) has it"),
        ("jail.sysvipc_allowed = yes", "jail.sysvipc_allowed: a number is wanted, as sysctl(8) has it"),
        ("security.jail.enforce_statfs=3", "enforce_statfs: 3 is not from 0 to 2"),
        ("interface = 'a/b'", 'interface: not the name of an interface: "a/b"'),
        ("\x1b[2J", "unknown parameter: \\x1b[2J"),
    ],
)
def test_what_is_refused_and_where(line: str, why: str) -> None:
    with pytest.raises(JailError) as caught:
        parse(f"# first\n\n{line}\npersist\n")
    assert str(caught.value) == f"line 3: {why}"


@pytest.mark.parametrize("name", ["jid", "name", "path", "host.hostname", "ip4.addr", "ip6.addr", "command", "meta.a"])
def test_what_is_each_jails_own_has_no_default(name: str) -> None:
    with pytest.raises(JailError, match=f"^line 1: {name}: is each jail's own and has no default$"):
        parse(f"{name} = 1")


def test_lines_that_cannot_be_had_together() -> None:
    with pytest.raises(JailError, match=r"^sysvsem=inherit: Linux shares all System V IPC or none"):
        parse("sysvsem = inherit")


def test_what_a_jail_is_given_comes_first() -> None:
    text = "ng.uids = shared\nallow.raw_sockets\nexec.prestart = a"
    jail = made(text, "ng.uids=private", "exec.prestart=b")
    assert jail["ng.uids"] == "private"
    assert jail["exec.prestart"] == ("b",)
    assert jail.flag("allow.raw_sockets")


def test_a_default_counts_as_not_given() -> None:
    jail = made("exec.clean\nallow.raw_sockets", "persist")
    assert jail.flag("exec.clean")
    assert not jail.given("exec.clean")
    assert jail.words(pseudo=True) == ["persist"]
    assert "allow.raw_sockets=true" in jail.to_lines()


def test_what_is_decided_together_is_decided_by_the_jail() -> None:
    assert made("ip4 = inherit", "ip6.addr=2001:db8::1")["ip4"] == "new"
    assert made("ip4 = inherit\nip6 = inherit", "ip4.addr=192.0.2.1")["ip6"] == "new"
    assert made("allow.sysvipc", "sysvshm=new")["sysvmsg"] == "disable"
    assert made("sysvmsg = new", "allow.sysvipc")["sysvmsg"] == "inherit"
    assert made("allow.sysvipc", "persist")["sysvmsg"] == "inherit"


def test_only_roots_file_counts(tmp_path: Path) -> None:
    file = tmp_path / "jailng.conf"
    file.write_text("ng.uids = shared\n")

    def refusal() -> str:
        with pytest.raises(JailError) as caught:
            apply(Parameters(), os.open(file, os.O_RDONLY), "FILE")
        return str(caught.value)

    if os.geteuid() != 0:
        assert refusal() == "FILE: does not belong to root"
        return
    params = Parameters()
    apply(params, os.open(file, os.O_RDONLY), "FILE")
    assert params["ng.uids"] == "shared"
    for mode in (0o664, 0o646):
        file.chmod(mode)
        assert refusal() == "FILE: others than root may write to it: chmod go-w"
    file.chmod(0o644)
    os.chown(file, 1, -1)
    assert refusal() == "FILE: does not belong to root"
    file.unlink()
    file.mkdir()
    assert refusal() == "FILE: not a regular file"


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse(text)
    except JailError as error:
        assert str(error).isprintable()


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\0$")))
def test_what_is_quoted_comes_back(text: str) -> None:
    for mark in "'\"":
        quoted = mark + text.replace("\\", "\\\\").replace(mark, "\\" + mark) + mark
        assert parse(f"exec.prestart = {quoted} ; # remark")["exec.prestart"] == (text,)
