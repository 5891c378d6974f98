"""Whom a name means in a jail's passwd(5) and group(5)."""

from __future__ import annotations

import grp
import pwd

import pytest

from jailng.core import passwd
from jailng.errors import JailError

PASSWD = """\
root:x:0:0:root:/root:/bin/bash
plain:x:1000:1000:::
1000:x:1001:1001::/:/bin/sh
two:x:1002:1002::/two:/bin/sh
short:x:3:3::/
far:x:65536:1::/:/bin/sh
fargroup:x:1:65536::/:/bin/sh
odd:x:-1:1::/:/bin/sh
last:x:65535:65535::/:/bin/sh
"""
GROUP = """\
team:x:3000:plain,two
alone:x:2000:plain
far:x:65536:plain
none:x::plain
short:x:1
notthis:x:4:plainer,aplain
number:x:5:1001
"""


@pytest.fixture(autouse=True)
def database(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"/etc/passwd": PASSWD, "/etc/group": GROUP}
    monkeypatch.setattr(passwd, "_lines", lambda path: [line.split(":") for line in texts[path].split("\n")])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("root", ("root", 0, 0, [0], "/root", "/bin/bash")),
        ("0", ("root", 0, 0, [0], "/root", "/bin/bash")),
        ("plain", ("plain", 1000, 1000, [1000, 2000, 3000], "/", "/bin/sh")),
        ("1000", ("1000", 1001, 1001, [1001], "/", "/bin/sh")),  # a name before it is a uid
        ("1001", ("1000", 1001, 1001, [1001], "/", "/bin/sh")),
        ("1002", ("two", 1002, 1002, [1002, 3000], "/two", "/bin/sh")),
        ("last", ("last", 65535, 65535, [65535], "/", "/bin/sh")),
    ],
)
def test_who_it_is(name: str, expected: tuple[str, int, int, list[int], str, str]) -> None:
    found = passwd.find(name)
    assert (found.name, found.uid, found.gid, found.groups, found.home, found.shell) == expected


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("short", "no such user"),
        ("odd", "no such user"),
        ("", "no such user"),
        ("-1", "no such user"),
        ("65536", "no such user"),
        ("\u0661", "no such user"),
        ("9" * 5000, "no such user"),
        ("far", "uid 65536: a jail has 0 to 65535"),
        ("fargroup", "gid 65536: a jail has 0 to 65535"),
    ],
)
def test_who_is_none(name: str, why: str) -> None:
    with pytest.raises(JailError) as caught:
        passwd.find(name)
    assert str(caught.value) == f"{name}: {why}"


@pytest.mark.parametrize(
    ("uid", "gid", "why"),
    [
        (-1, 1, "an id that nobody can have: 4294967295"),
        (1, -1, "an id that nobody can have: 4294967295"),
        (65536, 1, "uid 65536: a jail has 0 to 65535"),
        (1, 65536, "gid 65536: a jail has 0 to 65535"),
        (1000, 1001, ""),
    ],
)
def test_who_the_host_says_it_is(monkeypatch: pytest.MonkeyPatch, uid: int, gid: int, why: str) -> None:
    """Whose ids no jail has is nobody there; of groups those that it has stay."""
    monkeypatch.setattr(pwd, "getpwnam", lambda name: pwd.struct_passwd((name, "x", uid, gid, "", "", "")))
    groups = [grp.struct_group(("g", "x", number, ["u"])) for number in (70000, 65535, -1, 5)]
    monkeypatch.setattr(grp, "getgrall", lambda: [*groups, grp.struct_group(("other", "x", 6, ["uu"]))])
    if why:
        with pytest.raises(JailError) as caught:
            passwd.of_the_host_inside("u")
        assert str(caught.value) == f"u: {why}"
    else:
        assert passwd.of_the_host("u").groups == [5, gid, 65535, 70000]
        found = passwd.of_the_host_inside("u")
        assert (found.uid, found.groups, found.home, found.shell) == (uid, [5, gid, 65535], "/", "/bin/sh")
