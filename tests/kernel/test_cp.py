"""jailctl cp and export: files into and out of a running jail, and what a hostile root can do about it."""

from __future__ import annotations

import ctypes
import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.kernel.conftest import ENVIRONMENT, Command
from tests.kernel.stage import Stage

_libc = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD, _EXCHANGE = -100, 2
PATIENCE = 120  # seconds, on a machine that has much else to do: what never ends is told from what does


@pytest.fixture
def root(jail: Command, small_root: Path) -> Iterator[Path]:
    """The root of a running jail, ``x``."""
    made = jail("-c", "name=x", "persist", f"path={small_root}")
    assert made.returncode == 0, made.stderr
    yield small_root
    jail("-R", "x")


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A directory of the host's."""
    made = tmp_path / "there"
    made.mkdir()
    return made


def plant(top: Path) -> Path:
    """A tree with something of each kind, one of a device's excepted."""
    tree = top / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "a").write_text("content")
    (tree / "a").chmod(0o4711)
    os.link(tree / "a", tree / "sub/hard")
    (tree / "link").symlink_to("/etc/shadow")
    (tree / "ä\n\udcff").write_text("")
    os.mkfifo(tree / "fifo")
    with open(tree / "sparse", "wb") as file:
        file.seek(1 << 30)
        file.write(b"end")
    os.utime(tree / "a", (1000, 1000))
    os.chown(tree / "sub", 1001, 1002)
    (tree / "sub").chmod(0o2750)
    return tree


def facts(tree: Path) -> dict[str, tuple[object, ...]]:
    """What there is in a tree: type, mode, owner and content of each."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [tree, *sorted(tree.rglob("*"))]:
        status = path.lstat()
        what: object = os.readlink(path) if path.is_symlink() else status.st_size if path.is_file() else ""
        mode = stat.S_IFMT(status.st_mode), oct(stat.S_IMODE(status.st_mode))
        found[str(path.relative_to(tree))] = (*mode, status.st_uid, status.st_gid, what)
    return found


def test_there_and_back(jailctl: Command, root: Path, there: Path) -> None:
    """Modes, links, holes and names; with -a owners and, into the jail alone, set-user-ID bits."""
    tree = plant(there)
    done = jailctl("cp", "-a", str(tree), "x:/tmp")
    assert (done.returncode, done.stderr) == (0, "jailctl: cp: host: tree/fifo: FIFO, left out\n")
    (tree / "fifo").unlink()
    assert facts(root / "tmp/tree") == facts(tree)
    assert (root / "tmp/tree/a").stat().st_mtime == 1000
    assert (root / "tmp/tree/a").stat().st_ino == (root / "tmp/tree/sub/hard").stat().st_ino
    assert (root / "tmp/tree/sparse").stat().st_blocks < 1000
    done = jailctl("cp", "-a", "x:/tmp/tree/.", f"{there}/back")
    assert done.returncode == 0 and "set-user-ID or set-group-ID of one file left out" in done.stderr
    (tree / "a").chmod(0o711)
    (tree / "sub").chmod(0o750)
    assert facts(there / "back") == facts(tree)
    assert (there / "back/sparse").stat().st_blocks < 1000
    done = jailctl("cp", "-r", "x:/tmp/tree", str(there / "roots"))
    assert {status[2:4] for status in facts(there / "roots").values()} == {(0, 0)}


def test_where_it_goes(jailctl: Command, jexec: Command, root: Path, there: Path) -> None:
    """cp(1): into a directory, in the place of a file, by a new name; and what is no such place."""
    (there / "f").write_text("new")
    (there / "d").mkdir()
    (there / "d/g").write_text("g")
    (root / "tmp/old").write_text("old")
    os.link(root / "tmp/old", root / "tmp/other")
    (root / "tmp/way").symlink_to("/srv")
    (root / "srv").mkdir()
    for arguments in (
        ("f", "x:/tmp"), ("f", "x:/tmp/name"), ("f", "x:/tmp/old"), ("f", "x:/tmp/way/"), ("f", "x:tmp/way/h"),
        ("-r", "d", "x:/tmp/new"), ("-r", "d", "x:/tmp/new"), ("-r", "d/", "x:/tmp/in"), ("-r", "f", "d", "x:/srv"),
    ):  # fmt: skip
        words = [
            str(there / word) if word in ("f", "d") else f"{there}/d/" if word == "d/" else word for word in arguments
        ]
        done = jailctl("cp", *words)
        assert (done.returncode, done.stderr) == (0, ""), (arguments, done)
    for path in ("tmp/f", "tmp/name", "tmp/old", "srv/f", "srv/h"):
        assert (root / path).read_text() == "new", path
    for path in ("tmp/new/g", "tmp/new/d/g", "tmp/in/g", "srv/d/g"):
        assert (root / path).read_text() == "g", path
    assert (root / "tmp/other").read_text() == "old"  # what was there is not written through
    assert not list(root.rglob(".jailctl*"))
    for given, why in (
        (["f", "x:/none/name"], "x: /none: No such file or directory"),
        (["f", "x:/none/"], "x: none: Not a directory"),
        (["d", "x:/tmp/e"], "host: d: is a directory (not copied)"),
        (["-r", "d", "x:/tmp/f"], "x: f: Not a directory"),
        (["none", "x:/tmp"], "host: none: No such file or directory"),
        (["f", "y:/tmp"], 'cp: "y" not found (a file of such a name is ./y:/tmp)'),
        (["f", "f"], "cp: neither from nor into a jail: a path in one is jail:path"),
        (["-r", "f", "d", "x:/tmp/f"], "x: /tmp/f: Not a directory"),
    ):  # fmt: skip
        done = jailctl("cp", *[str(there / word) if word in ("f", "d", "none") else word for word in given])
        assert (done.returncode, done.stderr) == (1, f"jailctl: {why}\n"), (given, done)


def test_streams(root: Path, there: Path, checkout: Path, jailctl: Command) -> None:
    """``-`` is a tar archive, in and out, and export is that of all that is the root's own."""
    plant(root / "tmp")
    command = [str(checkout / "bin/jailctl"), "cp", "-r"]
    out = subprocess.run([*command, "x:/tmp/tree", "-"], stdout=subprocess.PIPE, check=True, env=ENVIRONMENT)
    listed = subprocess.run(
        ["tar", "--warning=no-unknown-keyword", "-C", str(there), "-xf", "-"],
        input=out.stdout,
        check=True,
        capture_output=True,
    )
    assert listed.stderr == b"" and (there / "tree/sparse").stat().st_size == (1 << 30) + 3
    assert len(out.stdout) < 100_000
    back = subprocess.run([*command, "-", "x:/srv"], input=out.stdout, capture_output=True, env=ENVIRONMENT)
    assert back.returncode == 1 and b"x: /srv: Not a directory" in back.stderr
    (root / "srv").mkdir()
    assert subprocess.run([*command, "-", "x:/srv"], input=out.stdout, env=ENVIRONMENT).returncode == 0
    assert (root / "srv/tree/a").read_text() == "content"
    done = jailctl("export", "-o", f"{there}/whole.tar", "x")
    assert done.returncode == 0, done.stderr
    assert (there / "whole.tar").stat().st_mode & 0o777 == 0o600
    with tarfile.open(there / "whole.tar") as archive:
        names = archive.getnames()
    assert {"./bin/busybox", "./tmp/tree/a", "./dev", "./proc"} <= set(names)
    assert not [name for name in names if name.startswith(("./dev/", "./proc/"))]
    assert jailctl("export", "-o", f"{there}/more.tar", str(root)).returncode == 0


def test_a_jail_to_a_jail(jailctl: Command, jail: Command, root: Path, tmp_path: Path) -> None:
    (tmp_path / "other/tmp").mkdir(parents=True)
    assert jail("-c", "name=y", "persist", f"path={tmp_path}/other").returncode == 0
    try:
        (root / "tmp/f").write_text("f")
        done = jailctl("cp", "x:/tmp/f", "y:/tmp")
        assert (done.returncode, done.stderr) == (0, "")
        assert (tmp_path / "other/tmp/f").read_text() == "f"
        done = jailctl("cp", f"{root}/tmp/f", "y:/tmp/g")
        assert (done.returncode, done.stderr) == (1, f"jailctl: cp: {root}/tmp/f: in the tree of jail x: say x:path\n")
    finally:
        jail("-R", "y")


def test_jails_of_other_kinds(jailctl: Command, jail: Command, jexec: Command, small_root: Path, there: Path) -> None:
    """With the host's uids; in a jail; and one that has as many processes as it may have."""
    (there / "f").write_text("f")
    inner = small_root / "inner"
    (inner / "tmp").mkdir(parents=True)
    limited = ("ng.uids=shared", "ng.limits=maxproc:deny=1", "children.max=1")
    assert jail("-c", "name=x", f"path={small_root}", *limited, "persist").returncode == 0
    assert jail("-c", "name=x.y", f"path={inner}", "ng.uids=shared", "persist").returncode == 0
    words = [str(jexec("-h").args[0]), "x", "sh", "-c", "echo here; exec sleep 1000"]
    sleeping = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=ENVIRONMENT)
    assert sleeping.stdout is not None
    try:
        assert sleeping.stdout.readline() == b"here\n"
        for word, path in (("x:/tmp", small_root / "tmp/f"), ("x.y:/tmp", inner / "tmp/f")):
            done = jailctl("cp", str(there / "f"), word)
            assert (done.returncode, done.stderr, path.read_text()) == (0, "", "f")
            done = jailctl("cp", f"{word}/f", f"{there}/back")
            assert (done.returncode, done.stderr) == (0, "")
    finally:
        jail("-R", "x")
        sleeping.communicate(timeout=PATIENCE)


def test_links_lead_nowhere_outside(jailctl: Command, root: Path, there: Path) -> None:
    """Out: a link is a link, one on the way is the jail's own, and "..", too. In: the same."""
    (root / "etc/passwd").write_text("of the jail")
    for name, target in (
        ("a", "/etc/passwd"),
        ("b", f"../../../../../..{there}"),
        ("c", "/proc/1/root/etc"),
        ("d", "/etc"),
    ):
        (root / "tmp" / name).symlink_to(target)
    done = jailctl("cp", "x:/tmp/a", str(there))
    assert done.returncode == 0 and os.readlink(there / "a") == "/etc/passwd"
    assert jailctl("cp", "-L", "x:/tmp/a", f"{there}/e").returncode == 0
    assert jailctl("cp", "x:/tmp/d/passwd", f"{there}/f").returncode == 0
    assert jailctl("cp", "x:/../../../tmp/../etc/passwd", f"{there}/g").returncode == 0
    assert [(there / name).read_text() for name in "efg"] == ["of the jail"] * 3
    (there / "new").write_text("new")
    before = Path("/etc/passwd").read_bytes(), sorted(os.listdir(there))
    assert jailctl("cp", f"{there}/new", "x:/tmp/a").returncode == 0  # in its place, as of any file
    assert jailctl("cp", f"{there}/new", "x:/tmp/b/").returncode == 1
    assert jailctl("cp", f"{there}/new", "x:/tmp/c/").returncode in (0, 1)
    assert jailctl("cp", f"{there}/new", "x:/tmp/d/").returncode == 0
    assert (root / "etc/new").read_text() == "new"
    assert (Path("/etc/passwd").read_bytes(), sorted(os.listdir(there))) == before
    assert not Path("/etc/new").exists()


def test_a_link_that_is_followed_keeps_its_name(jailctl: Command, root: Path, there: Path) -> None:
    """Else the jail's root would say which file of the host's directory he writes: the administrator's .profile."""
    (root / "tmp/.profile").write_text("of the jail")
    (root / "tmp/report").symlink_to(".profile")
    (root / "tmp/.ssh").mkdir()
    (root / "tmp/.ssh/authorized_keys").write_text("his")
    os.link(root / "tmp/.ssh/authorized_keys", root / "tmp/.ssh/other")
    (root / "tmp/keys").symlink_to(".ssh")
    (root / "tmp/all").symlink_to("/")
    done = jailctl("cp", "-L", "x:/tmp/report", f"{there}/")
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in there.iterdir()] == ["report"]
    assert (there / "report").read_text() == "of the jail"
    done = jailctl("cp", "-Lr", "x:/tmp/keys", "x:/tmp/report", f"{there}")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in there.iterdir()) == ["keys", "report"]
    assert os.path.samefile(there / "keys/authorized_keys", there / "keys/other")
    done = jailctl("cp", "-Lr", "x:/tmp/keys/", "x:/tmp/keys/.", f"{there}/keys")
    assert (done.returncode, sorted(os.listdir(there / "keys"))) == (0, ["authorized_keys", "other"])
    assert jailctl("cp", "-Lr", "x:/tmp/all", f"{there}/all").returncode in (0, 1)
    assert (there / "all/tmp/report").is_symlink() and not (there / "tmp").exists()
    (there / "link").symlink_to("report")
    assert jailctl("cp", "-L", f"{there}/link", "x:/tmp").returncode == 0
    assert (root / "tmp/link").read_text() == "of the jail"


def test_what_is_no_file(jailctl: Command, root: Path, there: Path) -> None:
    """FIFOs and devices are not opened, a file without end is held to the limit, and so is a heap of them."""
    tree = root / "tmp/tree"
    tree.mkdir()
    os.mkfifo(tree / "fifo")
    os.mknod(tree / "socket", stat.S_IFSOCK | 0o666)
    os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    done = jailctl("cp", "-r", "x:/tmp/tree", str(there), timeout=PATIENCE)
    assert done.returncode == 0
    assert sorted(done.stderr.splitlines()) == [
        f"jailctl: cp: x: tree/{name}, left out" for name in ("fifo: FIFO", "null: device", "socket: socket")
    ]
    assert list((there / "tree").iterdir()) == []
    assert jailctl("cp", "x:/tmp/tree/fifo", f"{there}/fifo", timeout=PATIENCE).returncode == 0
    assert not (there / "fifo").exists()
    for number in range(30):
        (tree / str(number)).write_bytes(b"x" * 1000)
    done = jailctl("cp", "-r", "--max-size", "10k", "x:/tmp/tree", f"{there}/b")
    assert (done.returncode, done.stderr) == (1, "jailctl: x: more than 10240 bytes: --max-size\n")
    done = jailctl("cp", "-r", "--max-files", "20", "x:/tmp/tree", f"{there}/c")
    assert (done.returncode, done.stderr) == (1, "jailctl: x: more than 20 files in one directory: --max-files\n")
    with open(tree / "huge", "wb") as file:
        file.truncate(10 << 30)
    assert jailctl("cp", "x:/tmp/tree/huge", str(there), timeout=PATIENCE).returncode == 0
    assert ((there / "huge").stat().st_size, (there / "huge").stat().st_blocks) == (10 << 30, 0)


def test_a_tree_without_end(jailctl: Command, jexec: Command, root: Path, there: Path) -> None:
    """Deeper than a path can be: what can be named is copied, and of the rest it is said."""
    script = "cd /tmp; mkdir t; cd t; for i in $(seq 30); do mkdir -p $0 && cd $0; done; echo x > file"
    assert jexec("x", "/bin/sh", "-c", script, "d" * 200).returncode == 0
    done = jailctl("cp", "-r", "x:/tmp/t", str(there), timeout=PATIENCE)
    assert done.returncode == 1 and "File name too long" in done.stderr
    subprocess.run(["rm", "-rf", str(there / "t"), str(root / "tmp/t")], check=True)


def exchanging(one: Path, other: Path) -> tuple[threading.Thread, threading.Event]:
    """Another root of the same tree exchanges two names, over and over."""
    stop = threading.Event()

    def exchange() -> None:
        names = os.fsencode(one), os.fsencode(other)
        while not stop.is_set():
            _libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE)

    thread = threading.Thread(target=exchange)
    thread.start()
    return thread, stop


def test_names_that_are_exchanged_under_way(jailctl: Command, root: Path, there: Path, tmp_path: Path) -> None:
    """A directory for a link to the host's secrets, and a file for a FIFO, while they are copied out and in."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("of the host")
    before = facts(outside)
    (root / "tmp/d").mkdir()
    (root / "tmp/d/secret").write_text("of the jail")
    (root / "tmp/link").symlink_to(outside)
    (root / "tmp/d/f").write_text("f")
    os.mkfifo(root / "tmp/d/fifo")
    (there / "in").mkdir()
    (there / "in/secret").write_text("from the host")
    threads = [exchanging(root / "tmp/d", root / "tmp/link"), exchanging(root / "tmp/d/f", root / "tmp/d/fifo")]
    try:
        for number in range(3):
            done = jailctl("cp", "-r", "x:/tmp", f"{there}/{number}", timeout=PATIENCE)
            assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done
            done = jailctl("cp", "-r", f"{there}/in/", "x:/tmp/d", timeout=PATIENCE)
            assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done
    finally:
        for thread, stop in threads:
            stop.set()
            thread.join()
    assert facts(outside) == before
    for path in there.rglob("secret"):
        if not path.is_symlink() and "in" not in path.parts[-2:]:
            assert path.read_text() != "of the host", path


HOSTILE = (
    ("../out", b"0", ""), ("/etc/out", b"0", ""), ("a/../../out", b"0", ""), ("link/out", b"0", "link"),
    ("n" * 300, b"0", ""), ("/".join(["n" * 200] * 30), b"0", ""), ("hard", b"1", "/etc/passwd"),
    ("hard", b"1", "../../etc/passwd"), ("nul\0name", b"0", ""),
)  # fmt: skip


@pytest.mark.parametrize("member", HOSTILE, ids=range(len(HOSTILE)))
def test_an_archive_is_believed_nothing(
    root: Path, checkout: Path, tmp_path: Path, member: tuple[str, bytes, str]
) -> None:
    """Whoever could write into the pipe between the processes would gain as little."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        if member[2] == "link":
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc"
            archive.addfile(link)
        header = tarfile.TarInfo(member[0].replace("\0", "?"))
        header.type, header.linkname = member[1], member[2]
        if "\0" in member[0]:
            header.pax_headers = {"path": member[0]}
        archive.addfile(header)
    command = [str(checkout / "bin/jailctl"), "cp", "-", "x:/tmp"]
    done = subprocess.run(command, input=made.getvalue(), capture_output=True, timeout=PATIENCE, env=ENVIRONMENT)
    assert done.returncode == 1 and done.stderr.count(b"\n") == 1 and b"jailctl: x: " in done.stderr, done
    assert not (root / "etc/out").exists() and not (root / "out").exists()


def test_a_process_that_is_stopped_keeps_nobody(root: Path, there: Path, checkout: Path, stage: Stage) -> None:
    """Root inside may stop or kill the process that is there; whoever waits for it can be interrupted, or is told."""
    beside = next(stage.cgroup2.glob("jailng/*/init/cgroup.procs"))
    first = set(beside.read_text().split())
    for number in (signal.SIGKILL, signal.SIGSTOP):
        # A pipe that nobody reads: the process inside is there until it is.
        with subprocess.Popen(
            [str(checkout / "bin/jailctl"), "cp", "-r", "x:/bin", "-"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT,
        ) as copying:  # fmt: skip
            while not (pids := set(beside.read_text().split()) - first):
                assert copying.poll() is None
            pid = int(pids.pop())
            status = Path(f"/proc/{pid}/status").read_text()
            while "CapEff:\t000000008000001b" not in status:  # it has entered, and given up the rest
                status = Path(f"/proc/{pid}/status").read_text()
            assert Path(f"/proc/{pid}/cmdline").read_bytes().strip(b"\0") == b""
            os.kill(pid, number)
            if number == signal.SIGSTOP:
                copying.send_signal(signal.SIGTERM)
            copying.communicate(timeout=PATIENCE)
            assert copying.returncode != 0
            while set(beside.read_text().split()) - first:
                pass


def test_a_process_that_is_stopped_again_and_again(root: Path, there: Path, checkout: Path, stage: Stage) -> None:
    """It is let go on; but root inside could have it take as long as he likes, so after some times one is told."""
    beside = next(stage.cgroup2.glob("jailng/*/init/cgroup.procs"))
    first = set(beside.read_text().split())
    (root / "tmp/much").write_bytes(b"x" * (4 << 20))  # more than there is room for until it is read
    argv = [str(checkout / "bin/jailctl"), "cp", "-r", "x:/tmp/much", "-"]
    for again in (False, True):
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT) as copying:
            while not (pids := set(beside.read_text().split()) - first):
                assert copying.poll() is None
            pid = int(pids.pop())
            os.kill(pid, signal.SIGSTOP)
            while again and copying.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    copying.wait(timeout=0.1)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            _, said = copying.communicate(timeout=PATIENCE)
            told = b"jailctl: x: is stopped by its root, again and again\n"
            assert (copying.returncode, said) == ((1, told) if again else (0, b"")), again


def test_a_jail_that_does_not_answer(root: Path, there: Path, stage: Stage) -> None:
    """Nothing of it moves: one is told after a while, and nobody is left behind."""
    (root / "tmp/f").write_text("f")
    freeze = next(stage.cgroup2.glob("jailng/*/init/cgroup.freeze"))
    freeze.write_text("1")
    code = "from jailng.cli import jailctl; from jailng.ctl import carrier; carrier.PATIENCE = 1; jailctl.run()"
    command = [sys.executable, "-c", code, "cp", "x:/tmp/f", str(there)]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment)
    assert (done.returncode, done.stderr) == (1, "jailctl: x: nothing has moved for 1 seconds\n")
    freeze.write_text("0")


def test_what_is_refused(jailctl: Command, root: Path) -> None:
    for arguments, why in (
        (("--max-size", "many", "x:/a", "b"), "cp: --max-size many: not a number of bytes, as in 10g; 0 for any"),
        (("x:", "b"), "cp: x:: which file of it?"),
    ):
        done = jailctl("cp", *arguments)
        assert (done.returncode, done.stderr) == (1, f"jailctl: {why}\n")
    for usage in (("x:/a",), ("-q", "a", "b"), ()):
        done = jailctl("cp", *usage)
        assert done.returncode == 1 and "usage: jailctl cp" in done.stderr
