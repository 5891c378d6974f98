"""jailng.ctl.listing: the same rows as a table on a terminal, as plain columns, and as JSON."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress

import pytest

from jailng.ctl import listing
from jailng.ctl.listing import Column
from jailng.errors import UsageError

COLUMNS = [Column("jid", left=False), Column("name"), Column("who", "WHO ELSE")]
ROWS = [
    {"jid": 1, "name": "web", "who": ["a", "b"], "more": True},
    {"jid": 12, "name": "\x1b[31mred\n", "who": None},
]


def test_plain_columns(capfd: pytest.CaptureFixture[str]) -> None:
    assert listing.show("jails", COLUMNS, ROWS, False) == 0
    assert capfd.readouterr().out == "JID NAME            WHO ELSE\n  1 web             a,b\n 12 \\x1b[31mred\\x0a -\n"


def test_columns_stay_in_their_order(capfd: pytest.CaptureFixture[str]) -> None:
    """A terminal shows the number behind a Hebrew letter before it, unless that is an escape."""
    columns = [Column("name"), Column("jid", left=False), Column("who")]
    assert listing.show("jails", columns, [{"name": "\u05d0", "jid": 4, "who": "\u05d0"}], False) == 0
    assert capfd.readouterr().out == "NAME   JID WHO\n\\u05d0   4 \u05d0\n"


def test_json_has_the_rows_as_they_are_and_is_ascii(capfd: pytest.CaptureFixture[str]) -> None:
    rows = [*ROWS, {"jid": 3, "name": "日本\U0001f600"}]
    assert listing.show("jails", COLUMNS, rows, True, {"total": 2}) == 0
    out = capfd.readouterr().out
    assert out.isascii() and "\x1b" not in out
    assert json.loads(out) == {"jails": rows, "total": 2}


def test_json_is_text_to_every_reader(capfd: pytest.CaptureFixture[str]) -> None:
    """A surrogate by itself is none, and strict readers refuse the whole."""
    odd = {"name": "not\udcff\U0001f600", "\udc80": ["a", {"b": "\ud800"}], "n": 1}
    assert listing.document({"jails": [odd]}) == 0
    found = json.loads(capfd.readouterr().out)
    assert found == {"jails": [{"name": "not\\xff\U0001f600", "\\x80": ["a", {"b": "\\ud800"}], "n": 1}]}
    json.dumps(found, ensure_ascii=False).encode()


def test_options() -> None:
    assert listing.options(["a", "--json", "-n", "3", "b"], "usage", "n:") == ({"--json": "", "-n": "3"}, ["a", "b"])
    with pytest.raises(UsageError):
        listing.options(["-x"], "usage")


_PROGRAM = """
import sys
from contextlib import suppress
from jailng.ctl import listing
from jailng.ctl.listing import Column
columns = [Column("jid", left=False), Column("name", style=lambda value: "red")]
status = listing.show("jails", columns, [{"jid": 1, "name": chr(27) + "]0;x" + chr(7)}], False)
print("rich" in sys.modules, file=sys.stderr)
sys.exit(status)
"""


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "40", "TERM": "xterm"}


def test_no_rich_in_a_pipe() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, env=_environment())
    assert (done.returncode, done.stdout, done.stderr) == (0, "JID NAME\n  1 \\x1b]0;x\\x07\n", "False\n")


def test_a_terminal_gets_a_table_that_nothing_in_it_steers() -> None:
    pytest.importorskip("rich")
    outer, inner = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], stdin=inner, stdout=inner, stderr=subprocess.PIPE, text=True,
        env=_environment(),
    )  # fmt: skip
    os.close(inner)
    said = b""
    with suppress(OSError):  # EIO, behind the last of it: it comes in pieces
        while part := os.read(outer, 65536):
            said += part
    os.close(outer)
    shown = said.decode()
    assert (done.returncode, done.stderr) == (0, "True\n")
    assert "\x1b]0" not in shown and "\\x1b]0;x\\x07" in shown and "\x1b[31m" in shown


def test_who_reads_no_more_is_no_error_and_a_closed_output_is() -> None:
    words = [sys.executable, "-c", _PROGRAM]
    gone, kept = os.pipe()
    os.close(gone)
    done = subprocess.run(words, stdout=kept, stderr=subprocess.PIPE, text=True, env=_environment())
    os.close(kept)
    assert (done.returncode, done.stderr) == (0, "False\n")
    done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *words], capture_output=True, text=True, env=_environment())
    assert (done.returncode, done.stderr) == (1, "-c: standard output: Bad file descriptor\nFalse\n")
