"""Paths of the host's that lead into a tree whose owner is not trusted."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jailng.core import hostpath

Trees = Callable[[], dict[tuple[int, int], str]]


def identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``tmp_path/tree``, with files, directories and links, and beside it what they lead to; no jail runs."""
    monkeypatch.setattr(hostpath, "_add_running", lambda names: None)
    made = tmp_path / "tree"
    (made / "d").mkdir(parents=True)
    (tmp_path / "real").mkdir()
    for path in (tmp_path / "secret", tmp_path / "real/secret", made / "f", made / "d/f"):
        path.write_text(str(path.relative_to(tmp_path)))
    (made / "link").symlink_to(tmp_path / "secret")
    (made / "up").symlink_to("..")
    (made / "within").symlink_to("f")
    (tmp_path / "way").symlink_to("tree/d")
    (tmp_path / "beside").symlink_to("real")
    (tmp_path / "round").symlink_to("round")
    return made


@pytest.fixture
def trees(tree: Path) -> Trees:
    return lambda: {identity(tree): "cell"}


def read(path: Path | str, trees: Trees | None, up: bool = False) -> str:
    fd = hostpath.opened(str(path), os.O_RDONLY, more=trees, up=up)
    try:
        assert not os.get_inheritable(fd)
        return os.read(fd, 100).decode()
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("tree/f", "tree/f"),
        ("tree/d/f", "tree/d/f"),
        ("tree/./d//f", "tree/d/f"),
        ("way/f", "tree/d/f"),
        ("real/secret", "real/secret"),
        ("beside/secret", "real/secret"),
        ("real/../beside/secret", "real/secret"),
        ("tree/link", ""),
        ("tree/within", ""),
        ("tree/up/secret", ""),
        ("way/../f", ""),
        ("tree/d/../../secret", ""),
    ],
)
def test_no_link_in_the_tree_is_followed(tmp_path: Path, trees: Trees, path: str, found: str) -> None:
    """Nor ``..`` from it; those of the host's own are."""
    if found:
        assert read(tmp_path / path, trees) == read(str(tmp_path) + "/" + path, trees) == found
    else:
        with pytest.raises(OSError) as caught:
            read(str(tmp_path) + "/" + path, trees)
        assert (caught.value.errno, caught.value.filename) == (errno.ELOOP, str(tmp_path) + "/" + path)


def test_who_comes_up_from_where_he_is(tmp_path: Path, trees: Trees) -> None:
    assert read(f"{tmp_path}/tree/d/../f", trees, up=True) == "tree/f"


def test_a_jail_whose_root_is_the_hosts_has_no_tree(tmp_path: Path, tree: Path) -> None:
    (tmp_path / "far").symlink_to(tmp_path / "beside")
    assert read(tmp_path / "far/secret", lambda: {identity(Path("/")): "all"}) == "real/secret"


def test_a_path_from_here(tmp_path: Path, trees: Trees, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="Too many levels"):
        read("tree/link", trees)
    assert hostpath.leads_through("tree/nothing", trees) and not hostpath.leads_through("real", trees)


def test_links_without_end(tmp_path: Path, trees: Trees) -> None:
    with pytest.raises(OSError, match="Too many levels"):
        hostpath.leads_through(f"{tmp_path}/round", trees)


def test_what_is_written_to(tmp_path: Path, tree: Path, trees: Trees) -> None:
    """In the tree a regular file alone; of the host's own a FIFO as well, which is waited for."""
    for path in (tree / "fifo", tmp_path / "fifo"):
        os.mkfifo(path)
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    within = os.open(tree / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        fd = hostpath.created(str(tmp_path / "fifo"), os.O_WRONLY, 0o600, trees)
        assert os.get_blocking(fd) and not os.get_inheritable(fd)
        os.close(fd)
        with pytest.raises(OSError, match="not a regular file"):
            hostpath.created(str(tree / "fifo"), os.O_WRONLY, 0o600, trees)
    finally:
        os.close(reader)
        os.close(within)
    with pytest.raises(OSError) as caught:
        hostpath.created(str(tree / "fifo"), os.O_WRONLY, 0o600, trees)
    assert caught.value.errno == errno.ENXIO
    os.close(hostpath.created(str(tree / "new"), os.O_WRONLY, 0o600, trees))
    assert (tree / "new").stat().st_mode & 0o777 == 0o600


def test_what_is_left_of_a_path(tmp_path: Path, tree: Path) -> None:
    for path, rest in (("tree", ""), ("tree/d/./x//y", "d/x/y"), ("way/up", "d/up"), ("tree/f", "f")):
        found = hostpath.come_to({identity(tree)}, f"{tmp_path}/{path}")
        assert found is not None and found[1] == rest
        assert hostpath.identity(found[0]) == identity(tree) and not os.get_inheritable(found[0])
        os.close(found[0])
    for path in ("real", "nowhere/tree", "secret"):
        assert hostpath.come_to({identity(tree), identity(tmp_path / "secret")}, f"{tmp_path}/{path}") is None
