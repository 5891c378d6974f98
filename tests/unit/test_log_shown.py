"""An entry of a log in words: which are the entry's own, and which the guest has chosen."""

import re
import time
from pathlib import Path
from typing import Any

import pytest

from jailng.ctl import log
from jailng.ctl.log import _in_words
from jailng.errors import JailError
from jailng.observe import entry

_TIME = {"time": "2026-11-28T14:16:58.007155702Z"}
_WHEN = "2026-11-28T14:16:58.007Z"


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (
            {"kind": "exec", "pid": 2, "uid": 0, "path": "/usr/bin/tail", "argv": ["tail", "-n", "1"], "tty": "pts0"},
            "exec pid=2 uid=0 /usr/bin/tail tail -n 1 tty=pts0",
        ),
        (
            {"kind": "exec", "path": "/tmp/x uid=0", "argv": ["remote=192.0.2.1:22", "a b", ""], "entered": True},
            "exec '/tmp/x uid=0' 'remote=192.0.2.1:22' 'a b' '' entered=yes",
        ),
        (
            {"kind": "login", "uid": 0, "path": "/su\nlogin", "remote": "[2001:db8::1]:22", "name": "/a how=host"},
            "login uid=0 '/su\\x0alogin' remote=[2001:db8::1]:22 name='/a how=host'",
        ),
        (
            {"kind": "syslog", "facility": "auth", "severity": "info", "message": "x: y comm=sshd", "comm": "a b"},
            "syslog comm='a b' auth.info x: y comm=sshd",
        ),
        (
            {"kind": "syslog", "message": "\x1b[2J\u202e\u2028", "comm": "it's"},
            "syslog comm='it'\"'\"'s' - \\x1b[2J\\u202e\\u2028",
        ),
        ({"kind": "syslog", "message": "remote=192.0.2.1:22", "comm": "a"}, "syslog comm=a - remote=192.0.2.1:22"),
        ({"kind": "started", "again": False, "kinds": ["syslog", "exec"]}, "started again=no kinds=syslog,exec"),
    ],
)  # fmt: skip
def test_no_word_of_the_guests_passes_for_a_field(said: dict[str, Any], line: str) -> None:
    assert _in_words(_TIME | said) == f"{_WHEN} {line}"


def test_the_time_that_is_shown_can_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the host is; as it stands it says which time it is."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert log._since(_in_words(_TIME | {"kind": "started"}).partition(" ")[0]) == f"{_WHEN[:-1]}000000Z"
        assert log._since("2026-11-28 09:16:58.007") == f"{_WHEN[:-1]}000000Z"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_of_many_entries_those_that_are_wanted_are_found_by_their_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    made = entry.made(7, "exec", {"time": 1795875418007155702, "path": "/x"}, "a" * 64, b"k" * 32)[:-1]
    other = b'{"kind":"exec","time":"2026-11-28T14:16:58.007155702Z"}'  # somebody else's
    for line in (made, other):
        assert entry.told(line) == (_TIME["time"], "exec")
    assert entry.told(b"no entry") == ("None", "None")
    monkeypatch.setattr(entry, "fields", None)
    kept = log._chosen([made], {"exec"}, "2026-11-28T14:16:58.007155702Z")
    assert [*kept, *log._chosen([made], {"login"}, ""), *log._chosen([made], None, "2026-11-29")] == [made]


def test_the_kinds_of_entries_are_those_of_the_manual() -> None:
    manual = (Path(__file__).parents[2] / "man/jailctl.8").read_text()
    section = manual.partition(".Sh ENTRIES OF A LOG\n")[2].partition("\n.Sh ")[0]
    words = {word for line in re.findall(r"^\.It Cm (.*)$", section, re.MULTILINE) for word in line.split(" , ")}
    assert words == log._KINDS


def test_a_kind_that_there_is_not() -> None:
    assert log._kinds("exec,logins") == {"exec", *log._GROUPS["logins"].split()}
    for text in ("nosuch", "exec,", "exec,Login"):
        with pytest.raises(JailError, match=r"^log: --kind: no entry is of a kind "):
            log._kinds(text)
