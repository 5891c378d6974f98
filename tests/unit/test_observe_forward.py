"""What a log's entries are on the wire: RFC 5424, octets counted, whatever the guest has said."""

from __future__ import annotations

import json
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from jailng.observe import entry
from jailng.observe.forward import Forwarder, framed
from jailng.observe.logreader import Position
from jailng.params.log import Forward

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


def test_what_a_power_cut_has_lost_does_not_hide_what_comes_in_its_place(tmp_path: Path) -> None:
    """The collector was sent lines that were not on the disk yet. Others are written there, and were left out."""
    lines = [entry.made(number, "syslog", {"message": "x" * 100}, "a" * 64, b"k" * 32) for number in range(9)]
    other = entry.made(7, "syslog", {"message": "y" * 100}, "a" * 64, b"k" * 32)
    first, second = tmp_path / entry.file_name(0), tmp_path / entry.file_name(1)
    first.write_bytes(b"".join(lines))
    collector, state = Forward("tcp", "192.0.2.1", 514, {}), tmp_path / "forward"

    def goes_on() -> Position:
        return Forwarder(collector, tmp_path, state, "cell")._stored()

    assert goes_on() == Position(0, 0)
    end = Position(0, first.stat().st_size)
    Forwarder(collector, tmp_path, state, "cell")._store(end, lines[-1][:-1])
    assert goes_on() == end
    first.write_bytes(b"".join(lines + [other] * 9))
    assert goes_on() == end
    for there in (lines[:7], [*lines[:7], other * 9], [*lines[:7], other, other], [*lines[:8], other]):
        first.write_bytes(b"".join(there))
        assert goes_on() == Position(0, 0)
    state.write_text(f"0 {end.offset}\n")  # of an older release
    assert goes_on() == end
    first.write_bytes(b"".join(lines[:7]))
    assert goes_on() == Position(0, 0)
    first.unlink()
    second.write_bytes(b"".join(lines))
    assert goes_on() == end  # the reader goes on with the file after it
