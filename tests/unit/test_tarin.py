"""A tar archive made a tree of, in one that has other things in it already."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jailng.ctl.tarin import Manner, Refused, Writer
from jailng.ctl.told import Limits, Told


@pytest.fixture
def top(tmp_path: Path) -> Path:
    made = tmp_path / "top"
    made.mkdir()
    return made


@pytest.fixture
def told() -> Iterator[Told]:
    with open(os.devnull, "wb") as nobody:
        yield Told(nobody.fileno())


class Stream(io.BytesIO):
    """Something happens once all of it has been read."""

    def __init__(self, data: bytes, happens: Callable[[], None] = lambda: None) -> None:
        super().__init__(data)
        self.happens = happens

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data:
            self.happens()
        return data


def archive(*members: tuple[str, bytes, str], mode: int = 0o644, pax: dict[str, str] | None = None) -> bytes:
    """Members by name, type, and what a link is to; files hold their own names. ``pax`` is said of each."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as file:
        for name, kind, target in members:
            header = tarfile.TarInfo(name)
            header.type, header.linkname, header.mode = kind, target, mode
            header.uid, header.gid = os.getuid(), os.getgid()
            header.pax_headers = dict(pax or {})
            content = name.encode() if kind == tarfile.REGTYPE else b""
            header.size = len(content)
            file.addfile(header, io.BytesIO(content))
    return made.getvalue()


def write(
    top: Path, told: Told, data: bytes, manner: Manner | None = None, happens: Callable[[], None] = lambda: None
) -> None:
    fd = os.open(top, os.O_PATH | os.O_DIRECTORY)
    try:
        Writer(fd, manner or Manner(owners=True), Limits(), told).write(Stream(data, happens))
    finally:
        os.close(fd)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


FILE, LINK, HARD, DIRECTORY, FIFO = (
    tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE
)  # fmt: skip


@pytest.mark.parametrize("kind", [FILE, DIRECTORY])
@pytest.mark.parametrize("name", ["link/new", "link/d/new", "real/link/d/new"])
def test_a_link_that_is_there_is_not_followed(top: Path, told: Told, tmp_path: Path, name: str, kind: bytes) -> None:
    (tmp_path / "outside/d").mkdir(parents=True)
    (top / "real").mkdir()
    for link in (top / "link", top / "real/link"):
        link.symlink_to(tmp_path / "outside")
    with pytest.raises((Refused, NotADirectoryError), match=f"^{name}: leads through a link$|Not a directory"):
        write(top, told, archive((name, kind, "")))
    assert [path.name for path in (tmp_path / "outside").rglob("*")] == ["d"]


def test_a_hard_link_is_to_nothing_that_was_there(top: Path, told: Told) -> None:
    (top / "secret").write_text("old")
    with pytest.raises(Refused, match=r"^new: a hard link to what the archive does not have: secret$"):
        write(top, told, archive(("new", HARD, "secret")))
    assert os.listdir(top) == ["secret"]


def test_a_hard_link_to_itself(top: Path, told: Told) -> None:
    write(top, told, archive(("a", FILE, ""), ("a", HARD, "a"), ("b", HARD, "a")))
    assert sorted(os.listdir(top)) == ["a", "b"] and (top / "a").stat().st_nlink == 2


@pytest.mark.parametrize("kind", [FILE, LINK, FIFO])
@pytest.mark.parametrize("what", ["file", "link", "fifo"])
def test_what_has_the_name_that_a_file_has_first(top: Path, told: Told, tmp_path: Path, kind: bytes, what: str) -> None:
    """Who lives in the tree may guess it: nothing is written to what he has put there, nor waited for."""
    outside = tmp_path / "outside"
    outside.write_text("old")
    first = top / f".jailctl-{os.getpid()}-1"
    if what == "fifo":
        os.mkfifo(first)
    else:
        (os.link if what == "file" else os.symlink)(outside, first)
    with pytest.raises(FileExistsError):
        write(top, told, archive(("new", kind, "x")), Manner(owners=True, fifos=True))
    assert outside.read_text() == "old" and os.listdir(top) == [first.name]


@pytest.mark.parametrize("kind", [FILE, LINK, FIFO, HARD])
def test_what_cannot_have_its_name_leaves_nothing(top: Path, told: Told, kind: bytes) -> None:
    (top / "d").mkdir()
    with pytest.raises(IsADirectoryError):
        write(top, told, archive(("f", FILE, ""), ("d", kind, "f")), Manner(owners=True, fifos=True))
    assert sorted(os.listdir(top)) == ["d", "f"]


@pytest.mark.parametrize("target", ["x" * 4096, "a\0b"])
def test_a_link_that_no_file_system_has(top: Path, told: Told, target: str) -> None:
    with pytest.raises(Refused, match=r"^l: a link that cannot be$"):
        write(top, told, archive(("l", LINK, "x"), pax={"linkpath": target}))
    assert os.listdir(top) == []


@pytest.mark.parametrize("parts", ["0,9,4,4", "0,2,4,9", "4,4,0,4", "0,-1,4,4", "0,512,8,512"])
def test_a_map_of_holes_that_cannot_be(top: Path, told: Told, parts: str) -> None:
    sparse = {"GNU.sparse.map": parts, "GNU.sparse.size": "8", "GNU.sparse.name": "f"}
    with pytest.raises(Refused, match=r"^f: a map of holes that cannot be$"):
        write(top, told, archive(("f", FILE, ""), pax=sparse))
    assert os.listdir(top) == []


def test_attributes_that_an_archive_may_set(top: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []
    monkeypatch.setattr(os, "setxattr", lambda fd, name, value: found.append(name))
    names = ["user.a", "security.capability", "security.selinux", "trusted.overlay.opaque", "security.ima"]
    pax = {"SCHILY.xattr." + name: "x" for name in names} | {"user.b": "x"}
    write(top, told, archive(("f", FILE, ""), pax=pax), Manner(owners=True, attributes=True))
    assert sorted(found) == ["security.capability", "user.a"]


def test_modes(top: Path, told: Told) -> None:
    """Set-user-ID bits only where that is asked for; the sticky bit of a directory always, and never one of a FIFO."""
    members = ("d", DIRECTORY, ""), ("f", FILE, ""), ("p", FIFO, ""), ("above/f", FILE, "")
    for special, expected in ((False, [0o1777, 0o777, 0o777, 0o777]), (True, [0o7777, 0o7777, 0o777, 0o7777])):
        manner = Manner(owners=True, fifos=True, special=special)
        write(top, told, archive(*members, mode=0o7777), manner)
        assert [mode(top / name) for name, _, _ in members] == expected
        assert mode(top / "above") == 0o755
        os.rmdir(top / "d")


def test_a_directory_that_is_there_stays_as_it_is(top: Path, told: Told) -> None:
    (top / "old").mkdir(0o711)
    os.utime(top / "old", (1, 1))
    write(top, told, archive(("old", DIRECTORY, ""), ("new", DIRECTORY, ""), mode=0o777))
    assert (mode(top / "old"), (top / "old").stat().st_mtime) == (0o711, 1)
    assert mode(top / "new") == 0o777


def test_a_directory_that_is_exchanged_before_it_has_its_mode(top: Path, told: Told) -> None:
    """Until then nobody else looks into the one that was made."""

    def exchange() -> None:
        if (top / "other").exists():
            assert mode(top / "new") == 0o700
            (top / "new").rename(top / "made")
            (top / "other").rename(top / "new")

    (top / "other").mkdir(0o711)
    write(top, told, archive(("new", DIRECTORY, ""), mode=0o777), happens=exchange)
    assert mode(top / "new") == 0o711
