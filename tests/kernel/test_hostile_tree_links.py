"""Paths of the host's that lead through the tree of a running jail, whose root has made links and FIFOs there."""

from __future__ import annotations

import io
import os
import select
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel import debian as roots
from tests.kernel.conftest import ENVIRONMENT, Command

_LINKS = "Too many levels of symbolic links"


@pytest.fixture
def tree(jail: Command, small_root: Path, tmp_path: Path) -> Iterator[Path]:
    """The root of a running jail, ``x``, with a link in it, /out, to a directory of the host's, ``outside``."""
    (tmp_path / "outside/mnt").mkdir(parents=True)
    (small_root / "out").symlink_to(tmp_path / "outside")
    (small_root / "way").mkdir()
    (tmp_path / "link").symlink_to(small_root)  # one of the host's, that leads there
    made = jail("-c", "name=x", "persist", f"path={small_root}", "children.max=1")
    assert made.returncode == 0, made.stderr
    yield small_root
    jail("-R", "x")
    assert sorted(path.name for path in (tmp_path / "outside").rglob("*")) == ["mnt"]


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A root of another jail's."""
    return roots.small(tmp_path / "other")


@pytest.mark.parametrize("way", ["{tree}", "{tree.parent}/link"])
def test_a_log_in_the_tree_of_another_jail(jail: Command, tree: Path, other: Path, way: str) -> None:
    start = ("-c", "name=y", f"path={other}", "exec.start=echo out")
    log = way.format(tree=tree)
    done = jail(*start, f"exec.consolelog={log}/out/y", "command=/bin/true")
    assert (done.returncode, done.stderr) == (1, f"jail: open {log}/out/y: {_LINKS}\n")
    done = jail(*start, f"exec.consolelog={log}/way/y", "command=/bin/true")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tree / "way/y").read_text() == "out\n"


@pytest.mark.parametrize("whose", ["its own", "another's"])
def test_a_log_that_is_no_file(jail: Command, tree: Path, other: Path, whose: str) -> None:
    """A FIFO that somebody in the jail has open and does not read would keep who writes to it waiting for ever."""
    root = other if whose == "its own" else tree
    os.mkfifo(root / "fifo")
    start = ("-c", "name=y", f"path={other}", f"exec.consolelog={root}/fifo", "command=/bin/busybox", "seq", "100000")
    done = jail(*start, timeout=120)
    assert done.returncode == 1 and "No such device or address" in done.stderr
    held = os.open(root / "fifo", os.O_RDWR | os.O_NONBLOCK)
    try:
        done = jail(*start, timeout=120)
        assert done.returncode == 1 and done.stderr.endswith(f"{root}/fifo: not a regular file\n"), done
    finally:
        os.close(held)


def test_a_file_of_jids_that_is_none(jail: Command, jailctl: Command, tree: Path, other: Path, tmp_path: Path) -> None:
    """A FIFO there would keep the host waiting, with a jail in the making or packets at hand."""
    os.mkfifo(tree / "fifo")
    start = ("-c", "name=y", f"path={other}", "command=/bin/true")
    done = jail("-J", f"{tree}/fifo", *start, timeout=120)
    assert (done.returncode, done.stderr) == (1, f"jail: open {tree}/fifo: No such device or address\n")
    held = os.open(tree / "fifo", os.O_RDWR | os.O_NONBLOCK)
    try:
        done = jail("-J", f"{tree}/fifo", *start, timeout=120)
        assert (done.returncode, done.stderr) == (1, f"jail: open {tree}/fifo: not a regular file\n")
        done = jailctl("packets", "-w", f"{tree}/fifo", "x", timeout=120)
        assert (done.returncode, done.stderr) == (1, f"jailctl: {tree}/fifo: not a regular file\n")
    finally:
        os.close(held)
    os.mkfifo(tmp_path / "fifo")  # of the host's, whose reader is waited for
    with subprocess.Popen(["cat", str(tmp_path / "fifo")], stdout=subprocess.PIPE, text=True) as reader:
        done = jail("-J", f"{tmp_path}/fifo", *start, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
        assert reader.communicate(timeout=120)[0].startswith("jid=")


def test_a_fifo_of_the_hosts_is_a_log(jail: Command, other: Path, tmp_path: Path) -> None:
    """Its reader is waited for, as by open(2)."""
    os.mkfifo(tmp_path / "fifo")
    with subprocess.Popen(["cat", str(tmp_path / "fifo")], stdout=subprocess.PIPE, text=True) as reader:
        start = ("-c", f"path={other}", f"exec.consolelog={tmp_path}/fifo", "command=/bin/busybox", "seq", "20000")
        done = jail(*start, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
        assert reader.communicate(timeout=120)[0].splitlines()[-1] == "20000"


def test_a_fifo_that_nobody_reads_is_told_of(checkout: Path, other: Path, tmp_path: Path) -> None:
    """``jail -c`` waits for its reader, as ever, and says what for."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    command = [str(checkout / "bin/jail"), "-c", f"path={other}", f"exec.consolelog={fifo}", "command=/bin/busybox"]
    with subprocess.Popen([*command, "echo", "hello"], stderr=subprocess.PIPE, text=True) as started:
        assert started.stderr is not None
        try:
            assert select.select([started.stderr], [], [], 60)[0]
            assert started.stderr.readline() == f"jail: {fifo}: a FIFO that nobody reads: waiting for a reader\n"
            assert fifo.read_text() == "hello\n"
            assert started.wait(60) == 0
        finally:
            started.kill()


def test_a_root_behind_a_link(jail: Command, jailctl: Command, tree: Path, tmp_path: Path) -> None:
    """Where the root of a jail was that lies in the tree of another, there is a link to the host's /."""
    (tree / "in").symlink_to("/")
    done = jail("-c", "name=b", f"path={tree}/in", "command=/bin/true")
    assert (done.returncode, done.stderr) == (1, f"jail: path {tree}/in: {_LINKS}\n")
    done = jailctl("join", "x", "-c", f"{tree}/in", "/bin/true")
    assert (done.returncode, done.stderr) == (1, f"jailctl: join: path {tree}/in: {_LINKS}\n")


def test_nothing_is_mounted_behind_a_link(jail: Command, tree: Path, tmp_path: Path) -> None:
    """It has taken the place of the root of a jail in the jail since that was looked at."""
    (tree / "in/mnt").mkdir(parents=True)
    exchange = f"mv {tree}/in {tree}/moved && ln -s {tmp_path}/outside {tree}/in"
    seen = tmp_path / "seen"
    done = jail(
        "-c", "name=x.i", f"path={tree}/in", f"exec.prepare={exchange}", f"mount=tmpfs {tree}/in/mnt tmpfs rw",
        f"exec.prestart=cat /proc/self/mountinfo > {seen}", "persist",
    )  # fmt: skip
    assert done.returncode == 1 and not seen.exists(), done


@pytest.fixture
def shared(jail: Command, small_root: Path, tmp_path: Path) -> Iterator[Path]:
    """A directory of the host's that a running jail, ``x``, has been mounted, with a link in it of its root's, out."""
    tmp_path.chmod(0o700)
    made = tmp_path / "shared"
    (made / "way").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("secret")
    (small_root / "mnt").mkdir()
    started = jail("-c", "name=x", "persist", f"path={small_root}", f"mount={made} {small_root}/mnt nullfs rw")
    assert started.returncode == 0, started.stderr
    (made / "out").symlink_to(tmp_path / "outside")
    yield made
    jail("-r", "x")
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["file"]


def test_what_is_mounted_into_a_jail(
    jail: Command, jailctl: Command, shared: Path, small_root: Path, other: Path, tmp_path: Path
) -> None:
    """By its own path: no link that root inside has made there is followed."""
    start = ("-c", "name=y", f"path={other}", "exec.start=echo out")
    for place in ("out", "way"):
        code, why = (1, _LINKS) if place == "out" else (0, "")
        done = jail(*start, f"exec.consolelog={shared}/{place}/y", "command=/bin/true")
        assert (done.returncode, why in done.stderr) == (code, True), done
        done = jail("-J", f"{shared}/{place}/id", *start, "command=/bin/true")
        assert (done.returncode, why in done.stderr) == (code, True), done
        done = jailctl("cp", "x:/bin/busybox", f"{shared}/{place}/")
        assert (done.returncode, why in done.stderr) == (code, True), done
        done = jailctl("export", "-o", f"{shared}/{place}/x.tar", "x")
        assert (done.returncode, why in done.stderr) == (code, True), done
        done = jail("-c", "name=z", f"path={shared}/{place}", "command=/bin/true")
        assert done.returncode == 1 and why in done.stderr, done
    assert sorted(path.name for path in (shared / "way").iterdir()) == ["busybox", "id", "x.tar", "y"]
    done = jailctl("cp", f"{shared}/out/file", "x:/tmp/")
    assert (done.returncode, _LINKS in done.stderr) == (1, True), done
    done = jailctl("cp", "-L", f"{shared}/out/file", "x:/tmp/")
    assert done.returncode == 1 and "in the tree of jail x" in done.stderr, done
    assert not (small_root / "tmp/file").exists()
    (shared / "jail.conf").write_text(f'z {{ path = "{other}"; command = "/bin/true"; }}')
    done = jail("-f", f"{shared}/jail.conf", "-c", "z")
    assert done.returncode == 1 and "in the tree of jail x, whose root can write to it" in done.stderr, done


def _archive() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("f"))
    return made.getvalue()


def test_export_and_import(jailctl: Command, tree: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    done = jailctl("export", "-o", f"{tree}/out/a.tar", "x")
    assert (done.returncode, done.stderr) == (1, f"jailctl: {tree}/out: {_LINKS}\n")
    assert jailctl("export", "-o", f"{tree}/way/a.tar", "x").returncode == 0
    assert [path.name for path in (tree / "way").iterdir()] == ["a.tar"]
    done = jailctl("export", "-o", f"{tmp_path}/a.tar", f"{tree}/out")
    assert (done.returncode, done.stderr) == (1, f"jailctl: {tree}/out: {_LINKS}\n")
    assert jailctl("export", "-o", f"{tmp_path}/a.tar", f"{tree}/way").returncode == 0
    (tree / "tar").symlink_to(tmp_path / "a.tar")
    done = jailctl("import", f"{tree}/tar", f"{tmp_path}/new")
    assert (done.returncode, done.stderr) == (1, f"jailctl: {tree}/tar: {_LINKS}\n")
    os.mkfifo(tree / "fifo")
    done = jailctl("import", f"{tree}/fifo", f"{tmp_path}/new", timeout=120)
    assert done.stderr == f"jailctl: import: {tree}/fifo: in the tree of jail x, and no file\n"
    assert jailctl("import", f"{tree}/way/a.tar", f"{tmp_path}/new").returncode == 0
    for verb in (("import", f"{tmp_path}/a.tar"), ("bootstrap",)):
        for path in (f"{tree}/out/new", f"{tree}/new", f"{tmp_path}/link/new"):
            done = jailctl(*verb, path, timeout=120)
            assert done.returncode == 1 and "in the tree of jail x" in done.stderr, done
    assert not (tree / "new").exists()


def test_the_tree_of_a_jail_that_does_not_run(
    jail: Command, jailctl: Command, tree: Path, other: Path, etc: Path, tmp_path: Path
) -> None:
    """Its root has made links as well, while it ran. Of /etc/jail.conf they are known."""
    tmp_path.chmod(0o700)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/file").write_text("secret")
    (other / "out").symlink_to(tmp_path / "outside")
    (other / "in").symlink_to(tmp_path / "secret")
    (other / "way").mkdir()
    (etc / "jail.conf").write_text(
        f'y {{ path = "{other}"; }}\nz {{ path = "{tmp_path}/z"; exec.consolelog = "{other}/in/file"; }}\n'
    )
    done = jailctl("cp", "x:/bin/busybox", f"{other}/out/")
    assert (done.returncode, _LINKS in done.stderr) == (1, True), done
    done = jailctl("cp", f"{other}/in/file", "x:/tmp/")
    assert (done.returncode, _LINKS in done.stderr) == (1, True), done
    done = jailctl("cp", "-L", f"{other}/in/file", "x:/tmp/")
    assert (done.returncode, done.stderr) == (1, f"jailctl: cp: {other}/in/file: in the tree of jail y: not with -L\n")
    assert not (tree / "tmp/file").exists()
    done = jailctl("export", "-o", f"{tmp_path}/a.tar", f"{other}/in")
    assert (done.returncode, done.stderr) == (1, f"jailctl: {other}/in: {_LINKS}\n")
    done = jailctl("export", "-o", f"{other}/out/a.tar", "x")
    assert (done.returncode, done.stderr) == (1, f"jailctl: {other}/out: {_LINKS}\n")
    third = roots.small(tmp_path / "third")
    start, end = ("-c", "name=w", f"path={third}"), ("exec.start=true", "command=/bin/true")
    done = jail("-J", f"{other}/out/id", *start, *end)
    assert (done.returncode, done.stderr) == (1, f"jail: open {other}/out/id: {_LINKS}\n")
    done = jail(*start, f"exec.consolelog={other}/out/log", *end)
    assert (done.returncode, done.stderr) == (1, f"jail: open {other}/out/log: {_LINKS}\n")
    os.mkfifo(other / "fifo")
    held = os.open(other / "fifo", os.O_RDWR | os.O_NONBLOCK)
    try:
        done = jail(*start, f"exec.consolelog={other}/fifo", *end, timeout=120)
        assert (done.returncode, done.stderr) == (1, f"jail: open {other}/fifo: not a regular file\n")
    finally:
        os.close(held)
    done = jailctl("packets", "-w", f"{other}/out/x", "x")
    assert (done.returncode, done.stderr) == (1, f"jailctl: {other}/out/x: {_LINKS}\n")
    (tmp_path / "f.tar").write_bytes(_archive())
    for verb in (("import", f"{tmp_path}/f.tar"), ("bootstrap",)):
        for path in (f"{other}/in/new", f"{other}/in/new/deeper"):
            done = jailctl(*verb, path, timeout=120)
            assert (done.returncode, done.stderr) == (1, f"jailctl: {other}/in: {_LINKS}\n")
    assert jailctl("import", f"{tmp_path}/f.tar", f"{other}/way/new").returncode == 0
    assert sorted(path.name for path in (tmp_path / "secret").iterdir()) == ["file"]
    done = jailctl("logs", "z")
    assert (done.returncode, done.stdout) == (1, "") and _LINKS in done.stderr, done
    assert jailctl("cp", "x:/bin/busybox", f"{other}/way/").returncode == 0
    command = [str(jailctl("-h").args[0]), "cp", "x:/bin/busybox", "../"]  # whoever is there has come there
    assert subprocess.run(command, env=ENVIRONMENT, cwd=other / "way").returncode == 0
    assert (other / "way/busybox").exists() and (other / "busybox").exists()


def test_a_fifo_of_the_hosts_is_imported(jailctl: Command, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    os.mkfifo(tmp_path / "fifo")
    command = [str(jailctl("-h").args[0]), "import", f"{tmp_path}/fifo", f"{tmp_path}/new"]
    with subprocess.Popen(command, env=ENVIRONMENT) as importing:
        (tmp_path / "fifo").write_bytes(_archive())
        assert importing.wait(timeout=120) == 0
    assert (tmp_path / "new/f").exists()


def test_a_configuration_that_is_a_fifo(jail: Command, tree: Path, tmp_path: Path) -> None:
    os.mkfifo(tree / "fifo")
    done = jail("-f", f"{tree}/fifo", "-c", "y", timeout=120)
    assert (done.returncode, done.stderr) == (
        1, f"jail: {tree}/fifo: in the tree of jail x, whose root can write to it\n",
    )  # fmt: skip
    os.mkfifo(tmp_path / "fifo")  # of the host's, which is waited for
    command = [str(jail("-h").args[0]), "-f", f"{tmp_path}/fifo", "-e", ","]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as reading:
        (tmp_path / "fifo").write_text("z { path = /; persist; }")
        assert "name=z" in reading.communicate(timeout=120)[0]
