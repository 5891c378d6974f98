"""What a log's entries are on the wire: RFC 5424, octets counted, whatever the guest has said."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from jailng.observe import entry
from jailng.observe.forward import framed

_VALUE = r'"(?:[^"\\\]]|\\["\\\]])*"'
FRAME = re.compile(
    rb"(\d+) <(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) ([!-~]{1,255}) (jailng) "
    rb"([!-~]{1,128}) ([!-~]{1,32}) "
    rb"\[jailng@32473((?: [!-~]+=" + _VALUE.encode() + rb")*)\] \xef\xbb\xbf(.*)",
    re.DOTALL,
)


def made(kind: str, fields: dict[str, object]) -> bytes:
    return entry.made(7, kind, {"jail": "web", "jid": 3, **fields}, "a" * 64, b"k" * 32)[:-1]


def test_a_line_of_the_guest_s() -> None:
    line = made("syslog", {"pid": 4, "uid": 0, "facility": "auth", "severity": "info", "message": "sshd: a\n\x1b[m ]"})
    found = FRAME.fullmatch(framed(line, "host"))
    assert found is not None
    assert int(found[1]) == len(framed(line, "host")) - len(found[1]) - 1
    assert [found[at] for at in (2, 4, 6, 7)] == [b"38", b"web", b"4", b"syslog"]
    assert found[9] == rb"sshd: a\x0a\x1b[m ]"
    assert f'hash="{entry.digest(line)}"'.encode() in found[8]
    assert b'seq="7"' in found[8]


def test_what_the_kernel_tells_comes_as_it_stands_in_the_log() -> None:
    longest = {
        "path": "/" + "\udcff" * 2047,
        "argv": ["\udcff" * 4095],
        "name": "\udcff" * 1023,
    }  # as execprogram has it
    for said in ({"path": "/bin/sh"}, longest):
        line = made("exec", {"pid": 4, **said})
        found = FRAME.fullmatch(framed(line, "host"))
        assert found is not None
        assert found[2] == b"109"
        assert found[9] == line
        assert json.loads(found[9])["path"][0] == "/"


_ANY = st.text(st.characters(exclude_categories=()), max_size=40)


@given(_ANY, _ANY, _ANY)
def test_nothing_breaks_out_of_its_place(message: str, comm: str, jail: str) -> None:
    fields = {"jail": jail, "pid": None, "comm": comm, "facility": comm, "severity": message, "message": message}
    for kind in ("syslog", "exec"):
        frame = framed(made(kind, dict(fields)), "host")
        found = FRAME.fullmatch(frame)
        assert found is not None, frame
        assert int(found[1]) == len(frame) - len(found[1]) - 1
        assert not re.search(rb"[\x00-\x1f\x7f]", frame)
        frame.decode()
