"""fstab(5) as jail(8) reads it: usr.sbin/jail/config.c and command.c."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailng.conf.fstab import Entry, parse, parse_line
from jailng.errors import JailError


def one(text: str) -> Entry:
    entry = parse_line(text)
    assert entry is not None
    return entry


def test_fields() -> None:
    entry = one("/usr/ports  /jail/a/usr/ports\tnullfs ro,nosuid 0 0")
    assert (entry.device, entry.target, entry.kind) == ("/usr/ports", "/jail/a/usr/ports", "nullfs")
    assert entry.options == ("ro", "nosuid")
    assert entry.command == "/sbin/mount -t nullfs -o ro,nosuid /usr/ports /jail/a/usr/ports"
    assert entry.undo_command == "/sbin/umount -t nullfs /jail/a/usr/ports"


def test_no_options() -> None:
    entry = one("tmpfs /jail/a/tmp tmpfs")
    assert (entry.options, entry.command) == ((), "/sbin/mount -t tmpfs tmpfs /jail/a/tmp")


def test_escapes() -> None:
    entry = one(r"/a\040b\\c\011 /x\sy\M-c3\303\244 null\040fs r\040w")
    assert (entry.device, entry.target) == ("/a b\\c\t", "/x y\udce33ä")
    assert (entry.kind, entry.options) == (r"null\040fs", (r"r\040w",)), "only names are vis(3)'s"
    assert one(r"/a /b c\M").kind == r"c\M"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\7x\61x\0611", "\ax1x11"),
        (r"\x41g\x4g\x411\xC3\xA9", "Ag\x04gA1é"),
        (r"\^A\^?\^a", "\x01\x7f\x01"),
        (r"\M-a\M-aa\M^A\M^?", "\udce1\udce1a\udc81\udcff"),
        (r"a\$b\#\q", "ab#q"),
        (r"\E\a\v", "\x1b\a\v"),
    ],
)
def test_every_form_of_escape(text: str, expected: str) -> None:
    entry = one(f"/{text} /{text}x nullfs")
    assert (entry.device, entry.target) == (f"/{expected}", f"/{expected}x")


@pytest.mark.parametrize("text", ["", "  ", "\t"])
def test_blank(text: str) -> None:
    assert parse_line(text) is None


@pytest.mark.parametrize("text", ["/a", "/a /b"])
def test_missing_information(text: str) -> None:
    with pytest.raises(JailError) as raised:
        parse_line(text)
    assert str(raised.value) == f"mount: {text}: missing information"
    with pytest.raises(JailError) as raised:
        parse(text + "\n")
    assert str(raised.value) == f"mount.fstab: {text}: missing information"


@pytest.mark.parametrize(
    "text",
    [
        *("/a\\ /b c", "/a\\xzz /b c", "/a\\000 /b c", "/a\\777 /b c", "/a /b\\ä c", "/a\\M /b c", "/a\\M- /b c"),
        *("/a\\M^ /b c", "/a\\Mab /b c", "/a\\^ /b c", "/a\\x /b c", "/a\\x00 /b c", "/a /b\\ c"),
    ],
)
def test_parse_error(text: str) -> None:
    with pytest.raises(JailError) as raised:
        parse_line(text)
    assert str(raised.value) == f"mount: {text}: fstab parse error"


def test_comments_anywhere() -> None:
    found = parse(
        "# a comment\n\n  # another\n/a /b nullfs ro # rest\n/c#d /e nullfs\n/f /g nullfs ro#x".replace("/c#d", "#")
    )
    assert [entry.command for entry in found] == [
        "/sbin/mount -t nullfs -o ro /a /b",
        "/sbin/mount -t nullfs -o ro /f /g",
    ]
    with pytest.raises(JailError, match="/c: missing information"):
        parse("/c#d /e nullfs")


def test_in_a_value_of_mount_a_hash_is_no_comment() -> None:
    assert one("/a#b /c nullfs").device == "/a#b"


_NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


def vis(text: str) -> str:
    """vis(3) with VIS_OCTAL | VIS_WHITE, of all but letters and digits."""
    return "".join(
        chr(byte) if chr(byte).isascii() and chr(byte).isalnum() else f"\\{byte:03o}" for byte in text.encode()
    )


@given(_NAMES, _NAMES)
def test_whatever_the_name(device: str, target: str) -> None:
    entry = one(f"{vis(device)} {vis(target)} nullfs")
    assert (entry.device, entry.target) == (device, target)


@given(st.text())
def test_whatever_the_text(text: str) -> None:
    """It is entries, or FreeBSD's sentence."""
    try:
        found = parse(text)
    except JailError as error:
        assert str(error).startswith("mount.fstab: ")
    else:
        assert all(entry.device and entry.kind for entry in found) or "\\" in text
