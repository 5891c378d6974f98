"""An entry of a log in words: which are the entry's own, and which the guest has chosen."""

from typing import Any

import pytest

from jailng.ctl.log import _in_words

_TIME = {"time": "2026-11-28T14:16:58.007155702Z"}
_WHEN = "2026-11-28T14:16:58.007"


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
