"""The format of transcripts: what else relies on is that it is read as it says."""

from __future__ import annotations

from pathlib import Path

from tests.fidelity.transcripts import numbered, read, written

TEXT = """\
# A comment.
file a.conf
> a {
>
> }
file empty
$ jail -f a.conf -c
< given
| a: created
|
|- no newline
! jail: warned
= 1

$ jls
"""


def test_read_and_written(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(TEXT)
    first, second = read(tmp_path / "t.txt")
    assert first.files == {"a.conf": "a {\n\n}\n", "empty": ""}
    assert (first.command, first.given) == ("jail -f a.conf -c", "given\n")
    assert (first.out, first.err, first.status) == ("a: created\n\nno newline", "jail: warned\n", 1)
    assert (second.files, second.command, second.out, second.status) == ({}, "jls", "", 0)
    assert written(first, first.out, first.err, first.status) == TEXT[TEXT.index("$") : TEXT.index("\n\n$")]


def test_numbers() -> None:
    assert numbered("jid=NUMBER a\n", "jid=17 a\n") == "jid=NUMBER a\n"
    assert numbered("to: NUMBER NUMBER\n", "to: 1 22\n") == "to: NUMBER NUMBER\n"
    for found in ("jid= a\n", "jid=x a\n", "jid=17 b\n", "jid=17 a", "jid=17 a\nmore\n"):
        assert numbered("jid=NUMBER a\n", found) != "jid=NUMBER a\n"
