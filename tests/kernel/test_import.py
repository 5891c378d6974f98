"""jailctl import: a root made of an archive that means ill."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import signal
import stat
import struct
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.kernel.conftest import ENVIRONMENT, Command
from tests.kernel.stage import MS_BIND, mount, unmount


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that only root can enter."""
    tmp_path.chmod(0o700)
    return tmp_path


Member = tuple[str, bytes, str, bytes]


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", content: bytes = b"") -> Member:
    return name, kind, target, content


def archive(path: Path, *members: Member, change: Callable[[tarfile.TarInfo], None] | None = None) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as made:
        for name, kind, target, content in members:
            header = tarfile.TarInfo(name)
            header.type, header.linkname, header.size = kind, target, len(content)
            header.mode = 0o755
            if change is not None:
                change(header)
            made.addfile(header, io.BytesIO(content))
    return path


def test_a_root_that_lives(jailctl: Command, jail: Command, small_root: Path, place: Path) -> None:
    """Made of an archive in each of its wrappings, from a file and a pipe; owners, capabilities and holes are kept."""
    (small_root / "bin/su").write_bytes((small_root / "bin/busybox").read_bytes())
    (small_root / "bin/su").chmod(0o4755)
    value = (0x02000001).to_bytes(4, "little") + (1 << 10).to_bytes(4, "little") + bytes(12)
    os.setxattr(small_root / "bin/busybox", "security.capability", value)
    os.chown(small_root / "tmp", 1001, 1002)
    with open(small_root / "sparse", "wb") as file:
        file.truncate(10 << 30)
    assert jailctl("export", "-o", f"{place}/plain", str(small_root)).returncode == 0
    plain = (place / "plain").read_bytes()
    (place / "gz").write_bytes(gzip.compress(plain, 1))
    (place / "xz").write_bytes(lzma.compress(plain, preset=0))
    forms = ["plain", "gz", "xz"]
    if shutil.which("zstd"):
        subprocess.run(["zstd", "-q", str(place / "plain"), "-o", str(place / "zst")], check=True)
        forms.append("zst")
    for form in forms:
        root = place / "roots" / form
        done = jailctl("import", f"{place}/{form}", str(root))
        assert (done.returncode, done.stderr) == (0, ""), form
        assert stat.S_IMODE((root / "bin/su").stat().st_mode) == 0o4755
        assert os.getxattr(root / "bin/busybox", "security.capability") == value
        assert ((root / "tmp").stat().st_uid, (root / "tmp").stat().st_gid) == (1001, 1002)
        assert ((root / "sparse").stat().st_size, (root / "sparse").stat().st_blocks) == (10 << 30, 0)
    assert stat.S_IMODE((place / "roots").stat().st_mode) == 0o700
    done = jail("-c", "name=x", f"path={place}/roots/gz", "command=/bin/sh", "-c", "exit 0")
    assert (done.returncode, done.stderr) == (0, "")
    with open(place / "plain", "rb") as file:
        command = [str(jailctl("-h").args[0]), "import", "-", f"{place}/piped"]
        piped = subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE)
        assert subprocess.run(command, stdin=piped.stdout, env=ENVIRONMENT).returncode == 0
        assert piped.stdout is not None
        piped.stdout.close()
        piped.wait()
    assert (place / "piped/bin/busybox").exists()


OUTSIDE = (
    ((member("../out"),), "../out: leads out of the archive"),
    ((member("/etc/out"),), "/etc/out: leads out of the archive"),
    ((member("a/../../out"),), "a/../../out: leads out of the archive"),
    ((member("etc", tarfile.SYMTYPE, "/etc"), member("etc/out")), "etc/out: Not a directory"),
    ((member("up", tarfile.SYMTYPE, ".."), member("up/out")), "up/out: Not a directory"),
    ((member("d", tarfile.SYMTYPE, "/etc"), member("d", tarfile.DIRTYPE), member("d/out")), "d: Not a directory"),
    (
        (member("hard", tarfile.LNKTYPE, "/etc/passwd"),),
        "/etc/passwd: leads out of the archive",
    ),
    ((member("hard", tarfile.LNKTYPE, "../../etc/passwd"),), "../../etc/passwd: leads out of the archive"),
    (
        (member("l", tarfile.SYMTYPE, "/etc"), member("hard", tarfile.LNKTYPE, "l"), member("hard/out")),
        "hard/out: Not a directory",
    ),
    ((member("n" * 300),), "n" * 100 + ": a name that no file can have"),
    ((member("/".join(["n" * 100] * 60)),), ("n" * 100)[:100] + ": a name that no file can have"),
    ((member("."),), ".: is not a directory"),
    ((member("a"), member("a/b")), "a/b: Not a directory"),
    ((member("a", tarfile.DIRTYPE), member("a")), "a: Is a directory"),
)


@pytest.mark.parametrize("members, why", OUTSIDE, ids=range(len(OUTSIDE)))
def test_what_leads_out(jailctl: Command, place: Path, members: tuple[Member, ...], why: str) -> None:
    """It is refused by name, and nothing is left."""
    path = archive(place / "a.tar", *members)
    before = Path("/etc/passwd").stat()
    done = jailctl("import", str(path), f"{place}/new/root")
    assert (done.returncode, done.stderr) == (1, f"jailctl: import: {path}: {why}\n")
    assert [entry.name for entry in place.iterdir()] == ["a.tar"]
    assert not Path("/etc/out").exists() and not (place / "out").exists()
    after = Path("/etc/passwd").stat()
    assert (before.st_nlink, before.st_mtime_ns, before.st_ino) == (after.st_nlink, after.st_mtime_ns, after.st_ino)


def test_what_is_left_out_or_taken(jailctl: Command, place: Path) -> None:
    """Devices are not made; of two of a name the later counts; names are bytes; a hard link is to what is there."""
    path = archive(
        place / "a.tar",
        member("dev", tarfile.DIRTYPE),
        member("dev/sda", tarfile.BLKTYPE),
        member("dev/mem", tarfile.CHRTYPE),
        member("pipe", tarfile.FIFOTYPE),
        member("f", content=b"first"),
        member("f", content=b"second"),
        member("l", tarfile.SYMTYPE, "/etc/passwd"),
        member("l", content=b"a file"),
        member("a\nb\x1b[31m\udcff", content=b"name"),
        member("./deep/er/f", content=b"deep"),
        member("hard", tarfile.LNKTYPE, "./f"),
    )
    done = jailctl("import", str(path), f"{place}/root")
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        f"jailctl: import: {path}: dev/sda: device, left out",
        f"jailctl: import: {path}: dev/mem: device, left out",
    ]
    root = place / "root"
    assert list((root / "dev").iterdir()) == []
    assert stat.S_ISFIFO((root / "pipe").stat().st_mode)
    assert [(root / name).read_text() for name in ("f", "l", "hard", "deep/er/f")] == [
        "second",
        "a file",
        "second",
        "deep",
    ]
    assert (root / os.fsdecode(b"a\nb\x1b[31m\xff")).read_text() == "name"
    assert not (root / "l").is_symlink()
    assert not list(root.rglob(".jailctl*"))


def test_links_to_symbolic_links_are_kept(jailctl: Command, small_root: Path, place: Path) -> None:
    """Each was a link of its own."""
    (small_root / "link").symlink_to("/etc/passwd")
    (small_root / "alone").symlink_to("link")
    for name in ("other", "third"):
        os.link(small_root / "link", small_root / name, follow_symlinks=False)
    assert jailctl("export", "-o", f"{place}/a.tar", str(small_root)).returncode == 0
    done = jailctl("import", f"{place}/a.tar", f"{place}/root")
    assert (done.returncode, done.stderr) == (0, "")
    found = [place / "root" / name for name in ("link", "other", "third", "alone")]
    assert [os.readlink(path) for path in found] == ["/etc/passwd"] * 3 + ["link"]
    assert [os.lstat(path).st_nlink for path in found] == [3, 3, 3, 1]


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_an_archive_of_tars_own(jailctl: Command, small_root: Path, place: Path, form: str) -> None:
    """Holes, in each of the formats, and links to links, with what follows by way of them."""
    with open(small_root / "sparse", "wb") as file:
        file.truncate(10 << 30)
        file.seek(5 << 30)
        file.write(b"data")
    (small_root / "link").symlink_to("/etc/passwd")
    os.link(small_root / "link", small_root / "other", follow_symlinks=False)
    words = ["tar", "-S", f"--format={form}", "-C", str(small_root), "-cf", str(place / "a.tar"), "."]
    subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
    done = jailctl("import", f"{place}/a.tar", f"{place}/root")
    assert (done.returncode, done.stderr) == (0, "")
    with open(place / "root/sparse", "rb") as file:
        file.seek(5 << 30)
        assert file.read(5) == b"data\0"
        assert (os.fstat(file.fileno()).st_size, os.fstat(file.fileno()).st_blocks <= 8) == (10 << 30, True)
    assert os.readlink(place / "root/link") == os.readlink(place / "root/other") == "/etc/passwd"
    assert os.lstat(place / "root/link").st_nlink == 2


@pytest.mark.parametrize("nanoseconds", [0, 981173106_123456789, -5_500000000, 4102444800_000000001])
def test_times_are_kept_to_the_nanosecond(jailctl: Command, small_root: Path, place: Path, nanoseconds: int) -> None:
    (small_root / "f").touch()
    (small_root / "l").symlink_to("f")
    for name in ("f", "l", "tmp", "bin/busybox"):
        os.utime(small_root / name, ns=(nanoseconds, nanoseconds), follow_symlinks=False)
    assert jailctl("export", "-o", f"{place}/a.tar", str(small_root)).returncode == 0
    assert jailctl("import", f"{place}/a.tar", f"{place}/root").returncode == 0
    for name in ("f", "l", "tmp", "bin/busybox"):
        assert os.lstat(place / "root" / name).st_mtime_ns == nanoseconds, name


def test_attributes_are_kept(jailctl: Command, small_root: Path, place: Path) -> None:
    entries = ((1, 6, -1), (2, 4, 5), (4, 0, -1), (16, 4, -1), (32, 0, -1))  # user, user 5, group, mask, other
    access = b"\2\0\0\0" + b"".join([struct.pack("<HHi", *entry) for entry in entries])
    kept = {
        "user.a=b%3D%": b"\0\xff=\n",
        "user.none": b"",
        "user.\udcff\n\u202e": b"not UTF-8",
        "system.posix_acl_access": access,
    }
    (small_root / "f").touch()
    for name, value in kept.items():
        os.setxattr(small_root / "f", name, value)
    assert jailctl("export", "-o", f"{place}/a.tar", str(small_root)).returncode == 0
    done = jailctl("import", f"{place}/a.tar", f"{place}/root")
    assert (done.returncode, done.stderr) == (0, "")
    there = place / "root/f"
    assert {name: os.getxattr(there, name) for name in os.listxattr(there)} == kept
    assert stat.S_IMODE(there.stat().st_mode) == 0o640


def test_what_is_mounted_is_left_out(jailctl: Command, jail: Command, small_root: Path, place: Path) -> None:
    """Also what is of the file system that the root is on."""
    (place / "data").mkdir()
    for file in (place / "data/f", place / "file"):
        file.write_text("the host's")
    (small_root / "srv").mkdir()
    (small_root / "file").touch()
    mount(str(place / "file"), small_root / "file", flags=MS_BIND)
    try:
        line = f"mount={place}/data {small_root}/srv nullfs ro 0 0"
        done = jail("-c", "name=cell", f"path={small_root}", "persist", line)
        assert (done.returncode, done.stderr) == (0, "")
        for source in ("cell", str(small_root)):
            done = jailctl("export", "-o", f"{place}/a.tar", source)
            assert done.returncode == 0, done.stderr
            with tarfile.open(place / "a.tar") as found:
                names = found.getnames()
                assert ("./srv" in names, "./srv/f" in names) == (True, False)
                assert found.getmember("./file").size == 0
                proc = found.getmember("./proc")
                assert (proc.uid, proc.gid) == (0, 0)
        assert jail("-r", "cell").returncode == 0
    finally:
        unmount(small_root / "file")


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e400", "1.²", "-", "9" * 40, "1.-5", ""])
def test_times_that_are_none(jailctl: Command, place: Path, text: str) -> None:
    def change(header: tarfile.TarInfo) -> None:
        header.pax_headers = {"mtime": text}

    path = archive(place / "a.tar", member("f"), change=change)
    done = jailctl("import", str(path), f"{place}/root")
    assert "Traceback" not in done.stderr and "Error:" not in done.stderr


def test_no_room_for_what_is_exported(small_root: Path, checkout: Path) -> None:
    with open("/dev/full", "wb") as full:
        argv = [str(checkout / "bin/jailctl"), "export", str(small_root)]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "jailctl: export: No space left on device\n")


def test_no_more_memory_than_the_caller_may_have(small_root: Path, checkout: Path, place: Path) -> None:
    """Where root may not raise a limit, as in many a container."""
    bounded = ("setpriv", "--bounding-set=-sys_resource", "sh", "-c", 'ulimit -v 500000; exec "$@"', "sh")
    jailctl = str(checkout / "bin/jailctl")
    for words in (("export", "-o", f"{place}/a.tar", str(small_root)), ("import", f"{place}/a.tar", f"{place}/root")):
        done = subprocess.run([*bounded, jailctl, *words], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_limits(jailctl: Command, place: Path) -> None:
    many = archive(place / "many.tar", *[member(f"f{number}", content=b"x" * 100) for number in range(50)])
    for option, value, why in (
        ("--max-files", "49", "more than 49 files: --max-files"),
        ("--max-size", "4k", "more than 4096 bytes: --max-size"),
    ):
        done = jailctl("import", option, value, str(many), f"{place}/root")
        assert (done.returncode, done.stderr) == (1, f"jailctl: import: {many}: {why}\n")
        assert not (place / "root").exists()
    bomb = archive(place / "bomb.tar", member("f", content=bytes(64 << 20)))
    (place / "bomb.gz").write_bytes(gzip.compress(bomb.read_bytes()))
    done = jailctl("import", "--max-size", "1m", f"{place}/bomb.gz", f"{place}/root")
    assert done.returncode == 1 and "more than 1048576 bytes" in done.stderr
    odd = archive(place / "odd.tar", member("a/b/c"), member("f", b"Z", content=bytes(64 << 20)))
    for number, option in enumerate(("--strip=2", "--strip=0")):  # what is passed over has to be unpacked as well
        (place / "odd.gz").write_bytes(gzip.compress(odd.read_bytes()))
        done = jailctl("import", "--max-size", "1m", option, f"{place}/odd.gz", f"{place}/odd{number}")
        assert done.returncode == 1 and "more than 1048576 bytes" in done.stderr
    (place / "behind.gz").write_bytes(gzip.compress(many.read_bytes() + bytes(64 << 20)))
    done = jailctl("import", "--max-size", "1m", f"{place}/behind.gz", f"{place}/root")
    assert done.returncode == 1 and "more than 1048576 bytes" in done.stderr


def test_no_time(jailctl: Command, place: Path) -> None:
    def change(header: tarfile.TarInfo) -> None:
        header.pax_headers = {"mtime": "nan"}

    made = archive(place / "a.tar", member("f"), change=change)
    done = jailctl("import", str(made), f"{place}/root")
    assert (done.returncode, done.stderr) == (0, "") and (place / "root/f").stat().st_mtime == 0


ODD = (
    ("an owner", "uid", "99999999999999999999"),
    ("as it is", "gid", "4294967295"),
    ("below nothing", "uid", "-1"),
    ("a map", "GNU.sparse.map", "1,x"),
    ("a size", "GNU.sparse.size", "x"),
)


def _with(**headers: str) -> bytes:
    """An archive of one file about which an extended header says such things."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as odd:
        header = tarfile.TarInfo("f")
        header.pax_headers = (
            {"GNU.sparse.map": "0,0", "GNU.sparse.size": "0", **headers} if "GNU" in str(headers) else headers
        )
        odd.addfile(header)
    return made.getvalue()


def _extended(records: bytes) -> bytes:
    header = tarfile.TarInfo("PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, len(records)
    return header.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % 512)


def _damaged(place: Path) -> dict[str, bytes]:
    whole = archive(place / "whole.tar", member("a", content=os.urandom(5000)), member("b")).read_bytes()
    packed = {
        name: pack(whole) for name, pack in (("gzip", gzip.compress), ("bzip2", bz2.compress), ("xz", lzma.compress))
    }
    header = tarfile.TarInfo("f")
    header.pax_headers = {"comment": "x" * 10}
    pax = header.tobuf(tarfile.PAX_FORMAT)
    return {
        "cut": whole[:3000],
        "noise": os.urandom(20000),
        "empty": b"",
        "nothing": bytes(10240),
        "huge header": pax[:124] + b"77777777777\0" + pax[136:],
        **{name: content[:2000] for name, content in packed.items()},
        **{f"{name}'s sum": content[:-12] + bytes(12) for name, content in packed.items()},
        "behind gzip": packed["gzip"] + b"more",
        **{name: _with(**{key: value}) for name, key, value in ODD},
        "chain": b"".join([_extended(b"11 path=aa\n")] * 3000) + whole,
        "zstd": b"\x28\xb5\x2f\xfd" + os.urandom(1000),
    }


WHATS = "cut,noise,empty,nothing,huge header,gzip,bzip2,xz,gzip's sum,bzip2's sum,xz's sum,behind gzip,zstd,chain"


@pytest.mark.parametrize("what", [*WHATS.split(","), *[name for name, _, _ in ODD]])
def test_what_is_no_archive(jailctl: Command, place: Path, what: str) -> None:
    content = _damaged(place)[what]
    (place / "whole.tar").unlink()
    (place / "a.tar").write_bytes(content)
    done = jailctl("import", f"{place}/a.tar", f"{place}/root", timeout=120)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done
    assert done.stderr.startswith("jailctl: import: ") and "Error" not in done.stderr, done
    assert [entry.name for entry in place.iterdir()] == ["a.tar"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_end_in_the_middle(jailctl: Command, place: Path, number: signal.Signals) -> None:
    """Nothing that looks like a root is left, and after SIGKILL the next import of the place clears up."""
    path = archive(place / "a.tar", member("f", content=b"x"))
    command = [str(jailctl("-h").args[0]), "import", "-", f"{place}/root"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=ENVIRONMENT, stderr=subprocess.DEVNULL) as making:
        assert making.stdin is not None
        making.stdin.write(path.read_bytes()[:1024])
        making.stdin.flush()
        while not (place / "root.partial").exists():
            assert making.poll() is None
        done = jailctl("import", str(path), f"{place}/root")
        assert done.stderr == f"jailctl: import: {place}/root: is being made by another jailctl\n"
        making.send_signal(number)
        making.wait(timeout=60)
    assert not (place / "root").exists()
    assert (place / "root.partial").exists() is (number == signal.SIGKILL)
    assert jailctl("import", str(path), f"{place}/root").returncode == 0
    assert sorted(entry.name for entry in place.iterdir()) == ["a.tar", "root"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_end_of_an_export(small_root: Path, jailctl: Command, place: Path, number: signal.Signals) -> None:
    """A backup that is given up leaves nothing."""
    with open(small_root / "big", "wb") as file:
        for _ in range(300):
            file.write(bytes(1 << 20))
    command = [str(jailctl("-h").args[0]), "export", "-o", f"{place}/a.tar", str(small_root)]
    status = 0
    for _ in range(20):
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, env=ENVIRONMENT) as making:
            while making.poll() is None and not _is_written(place):
                pass
            making.send_signal(number)
        if status := making.returncode:
            break
        (place / "a.tar").unlink()  # on a busy machine it may have come to its end first
    assert status == 128 + number
    assert not list(place.glob("a.tar*"))


def _is_written(place: Path) -> bool:
    with suppress(FileNotFoundError):  # it has its name by now
        return any(entry.stat().st_size for entry in place.glob("a.tar*"))
    return False


def test_a_signal_that_the_caller_ignores(jailctl: Command, place: Path) -> None:
    """nohup(1)."""
    path = archive(place / "a.tar", member("f", content=b"x"))
    words = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh", str(jailctl("-h").args[0]), "import", "-", f"{place}/root"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, env=ENVIRONMENT) as making:
        assert making.stdin is not None
        while not (place / "root.partial").exists():
            assert making.poll() is None
        making.send_signal(signal.SIGHUP)
        making.communicate(path.read_bytes(), timeout=60)
    assert making.returncode == 0 and (place / "root/f").exists()


def test_what_is_too_deep_is_taken_away(jailctl: Command, place: Path) -> None:
    """As deep as a path can be, which is more directories than a process may have open."""
    path = archive(place / "a.tar", member("d/" * 2000, tarfile.DIRTYPE), member("/etc/out"))
    done = jailctl("import", str(path), f"{place}/root")
    assert (done.returncode, done.stderr) == (1, f"jailctl: import: {path}: /etc/out: leads out of the archive\n")
    assert [entry.name for entry in place.iterdir()] == ["a.tar"]


def test_a_place_that_others_can_reach(jailctl: Command, place: Path) -> None:
    path = archive(place / "a.tar", member("f"))
    mount("none", "/mnt", "tmpfs", 0, "mode=755")
    try:
        Path("/mnt/jails").mkdir(mode=0o755)
        done = jailctl("import", str(path), "/mnt/jails/a")
        assert done.stderr == (
            "jailctl: import: /mnt/jails/a: other users of this host can reach /mnt/jails: chmod 0700 /mnt/jails\n"
        )
        assert list(Path("/mnt/jails").iterdir()) == []
    finally:
        unmount("/mnt")


def test_a_stanza(jailctl: Command, place: Path, etc: Path) -> None:
    path = archive(place / "a.tar", member("top/etc/rc", content=b"exit 0\n"), member("top/f"))
    words = ["--strip", "1", "--jail", "cell", "--address", "192.0.2.7", str(path), f"{place}/root"]
    done = jailctl("import", *words)
    assert (done.returncode, done.stderr) == (0, "/etc/jail.conf.d/cell.conf: jail cell\n")
    assert (place / "root/f").exists()
    text = (etc / "jail.conf.d/cell.conf").read_text()
    assert f'path = "{place}/root";' in text and 'exec.start = "/bin/sh /etc/rc";' in text
    done = jailctl("import", *words[:-1], f"{place}/other")
    assert done.returncode == 1 and "File exists" in done.stderr and not (place / "other").exists()


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace(1)")
def test_killed_while_it_is_written_to_the_disk(jailctl: Command, place: Path, etc: Path) -> None:
    """That may take long. There is no stanza yet, which would be of a jail without a root, and in the way."""
    path = archive(place / "a.tar", member("f"))
    words = ["import", "--jail", "cell", str(path), f"{place}/root"]
    killing = ["strace", "-qq", "-o", "/dev/null", "-e", "inject=sync:signal=KILL", str(jailctl("-h").args[0])]
    done = subprocess.run([*killing, *words], stdin=subprocess.DEVNULL, capture_output=True, env=ENVIRONMENT)
    assert done.returncode and not (place / "root").exists()
    assert not list((etc / "jail.conf.d").glob("*")) and not list((etc / "jail.conf.d").glob(".*"))
    assert jailctl(*words).returncode == 0
    assert (etc / "jail.conf.d/cell.conf").exists()


def test_what_is_refused(jailctl: Command, place: Path) -> None:
    path = archive(place / "a.tar", member("f"))
    (place / "full").mkdir()
    (place / "full/f").touch()
    for words, why in (
        ((str(path), f"{place}/full"), f"import: {place}/full: Directory not empty"),
        ((f"{place}/none", f"{place}/x"), f"{place}/none: No such file or directory"),
        (("--strip", "x", str(path), f"{place}/x"), "import: --strip x: not a number of components"),
    ):
        done = jailctl("import", *words)
        assert (done.returncode, done.stderr) == (1, f"jailctl: {why}\n")
    assert "usage: jailctl import" in jailctl("import", str(path)).stderr
