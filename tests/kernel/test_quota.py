"""``ng.quota``: what a jail's root may take of the disk, by an image of its own and by the quota of a project.

Whether this kernel has loop devices, and quotas of projects, is found out by trying; what it lacks the skip names.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailng.core import image, index, project, quota, registry
from jailng.core.overlay import user_namespace
from jailng.errors import JailError
from jailng.linux import loop
from jailng.linux import quota as kernel
from jailng.params.model import Parameters
from tests.kernel import faults
from tests.kernel.conftest import Command
from tests.kernel.debian import small
from tests.kernel.stage import mount, mounts, unmount
from tests.kernel.stdio_host import until

M = 1 << 20
_CAP_SYS_RESOURCE = 24
_CAPABLE = bytes.fromhex("0100000200040000000000000000000000000000")  # CAP_NET_BIND_SERVICE
_DEEP = 300  # directories, in a path that is longer than a path may be
_BOMB = "(i=0; while true >/tmp/$i; do i=$((i+1)); done) 2>&1; rm -f /tmp/*"


def _is_capable(number: int) -> bool:
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("CapEff"))
    return bool(int(line.split()[1], 16) >> number & 1)


def _run(*argv: str | Path) -> str:
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def loops() -> None:
    """Loop devices, or none of this can be tried."""
    if shutil.which("modprobe"):
        subprocess.run(["modprobe", "loop"], capture_output=True, check=False)
    if not Path("/dev/loop-control").exists():
        pytest.skip("no loop devices here")


def _lies_under(place: Path) -> list[str]:
    """The loop devices over files below a directory, when udevd(8) has let go of what it looked at."""
    end = time.monotonic() + 20
    while True:
        found = [line for line in _run("losetup", "-a").splitlines() if str(place) in line]
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.02)


# An image


@pytest.fixture
def hostile(small_root: Path) -> Path:
    """A root with all in it that one can come upon."""
    _furnish(small_root)
    return small_root


def _furnish(root: Path) -> None:
    (root / "link").symlink_to("/etc/shadow")
    (root / "up").symlink_to("../../..")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.getcwd()
        os.chdir(root)
        bound.bind("socket")
        os.chdir(here)
    (root / "one").write_text("one")
    os.link(root / "one", root / "two")
    os.chown(root / "two", 1001, 50)
    os.mknod(root / "null", 0o20666, os.makedev(1, 3))
    deep = root / "deep"
    deep.mkdir()
    depth = os.open(deep, os.O_RDONLY)
    for _ in range(_DEEP):
        os.mkdir("a-directory-in-a-directory", dir_fd=depth)
        below = os.open("a-directory-in-a-directory", os.O_RDONLY, dir_fd=depth)
        os.close(depth)
        depth = below
    os.close(depth)
    (root / "other").mkdir()


@pytest.fixture
def other(hostile: Path) -> Iterator[Path]:
    """Another file system below that root."""
    mount("none", hostile / "other", "tmpfs", 0, "size=1m")
    (hostile / "other/secret").write_text("the host's")
    yield hostile / "other"
    unmount(hostile / "other")


def test_an_image(hostile: Path, other: Path, jail: Command, jexec: Command, jls: Command) -> None:
    file = Path(f"{hostile}.img")
    given = ("-c", "name=cell", f"path={hostile}", "ng.quota=image:48M,inodes=1000", "persist")
    before = sorted(os.listdir(hostile))
    done = jail(*given)
    assert done.returncode == 0
    assert done.stderr == f"jail: ng.quota: {file} was made of {hostile}, which stays as it is, and unused\n"
    made = file.stat()
    assert (made.st_size, made.st_mode & 0o777, made.st_uid) == (48 * M, 0o600, 0)
    assert made.st_blocks * 512 < 24 * M

    def inside(script: str) -> str:
        return jexec("cell", "/bin/sh", "-c", script).stdout

    # It is the tree, and the tree alone.
    script = "cat one; stat -c '%h %u:%g' two; readlink link; stat -c %F fifo socket; ls other"
    assert inside(f"cd /; {script}").split("\n") == [
        "one2 1001:50", "/etc/shadow", "fifo", "socket", "",
    ]  # fmt: skip
    assert hostile.stat().st_mode == os.stat(hostile).st_mode

    # Its disk is its own, and so is what mountinfo(5) tells.
    root = inside("head -1 /proc/self/mountinfo").split()
    assert root[3:5] == ["/", "/"]
    _, size, used, free, _, _ = inside("df -k / | tail -1").split()
    assert 24 * M < int(size) * 1024 < 48 * M
    found = registry.find("cell")
    assert found is not None
    assert abs(quota.used(found)[0] - int(used) * 1024) < M
    assert quota.used(found)[1] > _DEEP + len(os.listdir(hostile / "bin"))
    assert os.statvfs(hostile).f_files == int(inside("df -i / | tail -1").split()[1])

    # Full is its own affair.
    error = jexec("cell", "/bin/dd", "if=/dev/zero", "of=/big", "bs=1M", "count=100")
    assert (error.returncode, "No space left on device" in error.stderr) == (1, True)
    assert "No space left on device" in inside(f"rm /big; {_BOMB}")
    assert os.statvfs(file.parent).f_bavail * os.statvfs(file.parent).f_frsize > 100 * M
    assert inside("echo kept >/kept; rm -f /two; cat /kept") == "kept\n"
    assert int(free) > 0

    # Nobody else has it meanwhile, and it does not shrink.
    again = jail("-c", "name=second", f"path={hostile}", "ng.quota=image:48M", "persist")
    assert again.stderr == f'jail: ng.quota: {file}: in use by jail "cell"\n'
    inodes = os.statvfs(hostile).f_files
    for value, why in (
        ("image:32M", f"{file}: has {48 * M} bytes, and does not shrink"),
        ("image:48M,inodes=100000", f"{file}: has {inodes} inodes, which is settled when an image is made"),
        ("48M", "between an image and the tree itself a jail changes when it is started anew"),
        ("", "the jail's root is in an image: it has to be started anew without"),
    ):
        done = jail("-m", "name=cell", f"ng.quota={value}")
        assert (done.returncode, done.stderr) == (1, f"jail: ng.quota: {why}\n")
    assert jls("-j", "cell", "ng.quota").stdout == "image:48M,inodes=1000\n"

    # It is gone with the jail, but for the file; what the directory had is there again.
    assert jail("-r", "cell").returncode == 0
    assert _lies_under(file.parent) == []
    assert sorted(os.listdir(hostile)) == before

    # The next jail finds it as it was; on a larger one it has more, where the host's root may resize.
    done = jail("-c", "name=cell", f"path={hostile}", "ng.quota=image:48M", "command=/bin/cat", "/kept", "/two")
    assert (done.stdout, done.stderr.splitlines()[0]) == ("kept\n", "cat: can't open '/two': No such file or directory")
    assert jail(*given[:-2], "ng.quota=image:48M", "persist").returncode == 0
    grown = jail("-m", "name=cell", "ng.quota=image:96M")
    if _is_capable(_CAP_SYS_RESOURCE):
        assert (grown.returncode, grown.stderr) == (0, "")
        assert int(inside("df -k / | tail -1").split()[1]) * 1024 > 72 * M
        assert file.stat().st_size == 96 * M
    else:
        why = "cannot grow: Operation not permitted (it takes CAP_SYS_RESOURCE)"
        assert grown.stderr == f"jail: ng.quota: {file}: {why}\n"
        assert file.stat().st_size == 48 * M
    assert jail("-r", "cell").returncode == 0
    assert _lies_under(file.parent) == []


def test_who_makes_an_image_is_nobody_to_the_host(small_root: Path, jail: Command) -> None:
    """mkfs.ext4 reads a tree that an enemy has made, and with its bugs, as the users of the jail and nobody else."""
    secret = small_root.parent / "secret"
    secret.write_text("the host's")
    secret.chmod(0o600)
    userns = user_namespace(index.uid_base(7))
    with pytest.raises(JailError, match=r"^cat: .*: Permission denied$"):
        image._run(["cat", str(secret)], [], userns=userns)
    with pytest.raises(JailError, match=r"^cat: .*: No such file or directory$"):
        image._run(["cat", "/none"], [], userns=userns)
    os.close(userns)
    (small_root / "private").write_text("0")
    (small_root / "private").chmod(0)
    (small_root / "foreign").write_text("1")
    os.chown(small_root / "foreign", 70_000, 65_535)
    os.setxattr(small_root / "private", "security.capability", _CAPABLE)
    done = jail("-c", "name=cell", f"path={small_root}", "ng.quota=image:24M", "persist")
    assert done.returncode == 0, done.stderr
    status = os.stat(small_root / "foreign")
    assert (status.st_uid, status.st_gid) == (65_534, 65_535)
    assert (small_root / "private").read_text() == "0"
    assert os.getxattr(small_root / "private", "security.capability") == _CAPABLE
    made = Path(f"{small_root}.img").stat()
    assert (made.st_uid, made.st_gid) == (0, 0)
    assert jail("-r", "cell").returncode == 0


def test_what_is_no_image_is_refused(small_root: Path, jail: Command) -> None:
    file = Path(f"{small_root}.img")

    def refused(path: str | Path = small_root, value: str = "image:16M", *more: str) -> str:
        done = jail("-c", "name=cell", f"path={path}", f"ng.quota={value}", *more, "persist")
        assert (done.returncode, done.stdout) == (1, "")
        return done.stderr.removeprefix("jail: ").removeprefix("ng.quota: ").rstrip("\n")

    file.symlink_to("/etc/passwd")
    assert refused() == f"{file}: is a symbolic link"
    file.unlink()
    file.mkdir()
    assert refused() == f"{file}: Is a directory"
    file.rmdir()
    os.mkfifo(file, 0o600)
    assert refused() == f"{file}: not a regular file"
    file.unlink()
    file.write_bytes(bytes(16 * M))
    file.chmod(0o644)
    assert refused() == f"{file}: has to be root's alone: chown root {file} && chmod 0600 {file}"
    file.chmod(0o600)
    assert refused() == f"{file}: no ext4 file system"
    file.unlink()
    (small_root / "big").write_bytes(os.urandom(20 * M))
    assert refused().startswith(f"{file}: mkfs.ext4: ")
    assert not file.exists()
    assert refused(path="/") == "not with path=/, which is the host's own tree"
    assert refused("/", "1G", "ng.lenient") == "not with path=/, which is the host's own tree"
    assert refused(value="a lot") == '"a lot": not an amount: "a lot"'
    limits = refused(small_root, "image:16M", "ng.limits=disk:deny=8M")
    assert limits == "disk:deny=8388608: the image is larger, and does not shrink"


def test_a_file_system_without_quotas_is_refused_by_name(tmp_path: Path, jail: Command) -> None:
    mount("none", tmp_path, "tmpfs", 0, "size=1m,mode=700")
    try:
        done = jail("-c", "name=cell", f"path={tmp_path}", "ng.quota=1G", "persist")
    finally:
        unmount(tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        f"jail: ng.quota: {tmp_path}: tmpfs has no quotas of projects: mount one for the jail alone, with size= "
        'and nr_inodes=, or set ng.quota="image:SIZE"\n'
    )


def test_a_jail_in_a_jail_has_none(small_root: Path, jail: Command) -> None:
    (small_root / "inner").mkdir()
    assert jail("-c", "name=cell", f"path={small_root}", "children.max=1", "persist").returncode == 0
    path = f"path={small_root}/inner"
    refusals = [
        jail("-c", "name=cell.inner", path, given, "persist").stderr
        for given in ("ng.quota=8M", "ng.limits=disk:deny=8M")
    ]
    assert jail("-r", "cell").returncode == 0
    why = "ng.quota: not for a jail in a jail: what that takes counts for the outer one"
    assert refusals == [f"jail: {why}\n"] * 2


def test_the_directory_beside_an_image_is_not_taken_for_the_root(
    small_root: Path, jail: Command, jailctl: Command, tmp_path: Path
) -> None:
    """In it is what was there before the image was; and a root that is made anew does not become an older jail's."""
    file, archive = Path(f"{small_root}.img"), tmp_path / "a.tar"
    given = ("-c", "name=cell", f"path={small_root}", "ng.quota=image:16M", "exec.start=touch /new", "persist")
    assert jail(*given).returncode == 0
    assert jailctl("export", "-o", str(archive), str(small_root)).returncode == 0
    assert "./new\n" in _run("tar", "-tf", archive)
    assert jail("-r", "cell").returncode == 0
    done = jailctl("export", "-o", str(archive), str(small_root))
    why = f"its files are in {file}, which is mounted while the jail runs"
    told = f"jailctl: export: {small_root}: {why}: start that, or mount -o loop,ro {file} /mnt\n"
    assert (done.returncode, done.stderr) == (1, told)
    small_root.rename(tmp_path / "gone")
    done = jailctl("import", str(archive), str(small_root))
    why = "File exists, and is the root of a jail of ng.quota=image: move it away"
    assert (done.returncode, done.stderr) == (1, f"jailctl: import: {file}: {why}\n")
    file.unlink()
    assert jailctl("import", str(archive), str(small_root)).returncode == 0


def test_an_image_with_errors_is_looked_at(small_root: Path, jail: Command) -> None:
    file = Path(f"{small_root}.img")
    given = ("-c", "name=cell", f"path={small_root}", "ng.quota=image:16M", "command=/bin/true")
    assert jail(*given).returncode == 0
    _run("debugfs", "-w", "-R", "set_super_value state 3", file)  # as the kernel marks it
    assert file.read_bytes()[1024 + 0x3A] & 2
    assert jail(*given).returncode == 0
    assert file.read_bytes()[1024 + 0x3A] & 2 == 0
    taken = _run("losetup", "-f", "--show", file).strip()
    try:
        assert jail(*given).stderr == f"jail: ng.quota: {file}: in use by {taken}\n"
    finally:
        _run("losetup", "-d", taken)


def test_an_image_that_is_killed_in_the_middle(small_root: Path, jail: Command, checkout: Path, tmp_path: Path) -> None:
    """At steps of making the image, of mounting it and of taking it away: the next command finds all in order."""
    file = Path(f"{small_root}.img")
    given = ["-c", "name=cell", f"path={small_root}", "ng.quota=image:16M", "persist"]
    wrong = []
    program = str(checkout / "bin/jail")
    for argv in (given, ["-r", "cell"]):
        if argv is not given:
            jail(*given)
        steps = faults.steps(tmp_path / "trace", program, *argv)
        stride = 1 if faults.STRIDE == 1 else 6 * faults.STRIDE
        for step in steps[os.getpid() % stride :: stride]:
            if argv is given:
                jail("-R", "cell")
                file.unlink(missing_ok=True)
            else:
                jail(*given)
            faults.run(step, "signal=SIGKILL", program, *argv)
            done = jail("-c", *given[1:-1], "command=/bin/true")
            if done.returncode and "already exists" in done.stderr:
                done = jail("-r", "cell")
            if done.returncode or _lies_under(small_root.parent) or small_root.is_mount():
                wrong.append(f"{step}: {done.stderr} {_lies_under(small_root.parent)}")
            if list(small_root.parent.glob("*.img*")) not in ([], [file]):
                wrong.append(f"{step}: {list(small_root.parent.glob('*.img*'))}")
    jail("-R", "cell")
    assert not wrong, "\n".join(wrong)


# The quota of a project


_MAKE = {
    "ext4": (64 * M, ("mkfs.ext4", "-q", "-F", "-O", "quota,project", "-E", "quotatype=prjquota")),
    "xfs": (320 * M, ("mkfs.xfs", "-q")),
}


@pytest.fixture(params=_MAKE)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system that holds projects to their quotas."""
    size, argv = _MAKE[request.param]
    if shutil.which(argv[0]) is None:
        pytest.skip(f"{argv[0]} is not installed")
    file, place = tmp_path / "disk", tmp_path / "mounted"
    place.mkdir()
    place.chmod(0o700)
    with file.open("wb") as opened:
        opened.truncate(size)
    _run(*argv, file)
    done = subprocess.run(
        ["mount", "-t", request.param, "-o", "loop,prjquota", file, place], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"this kernel has no quotas of projects on {request.param} (CONFIG_QFMT_V2, CONFIG_XFS_QUOTA)")
    os.chmod(place, 0o700)
    yield place
    unmount(place)


@pytest.fixture
def rooted(disk: Path) -> Path:
    """Such a root on such a disk, with chattr(1) in it."""
    root = small(disk / "root")
    _furnish(root)
    for program in ("chattr", "lsattr"):
        _bring(Path(shutil.which(program) or ""), root)
    return root


def _bring(program: Path, root: Path) -> None:
    shutil.copy(program, root / "bin" / f"real-{program.name}")
    for word in _run("ldd", program).split():
        if word.startswith("/"):
            (root / word[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(word, root / word[1:])


def _project(path: Path) -> tuple[bool, int]:
    fd = os.open(path, os.O_RDONLY)
    flags, found = kernel.attributes(fd)
    os.close(fd)
    return bool(flags & kernel.FS_XFLAG_PROJINHERIT), found


def _limits(disk: Path, number: int) -> tuple[int, int, int, int]:
    fd = os.open(disk, os.O_RDONLY)
    try:
        return kernel.get(fd, number)
    finally:
        os.close(fd)


def test_the_quota_of_a_project(rooted: Path, disk: Path, jail: Command, jexec: Command, checkout: Path) -> None:
    mount("none", rooted / "other", "tmpfs", 0, "size=1m")
    (rooted / "other/theirs").write_text("")
    given = ("-c", "name=cell", f"path={rooted}", "ng.quota=24M,inodes=1500", "persist")
    done = jail(*given)
    assert (done.returncode, done.stderr) == (0, "")
    number = project.number(rooted.stat().st_ino)
    assert _limits(disk, number)[:2] == (24 * M, 1500)

    # All of the tree is in the project, and nothing else.
    for path, inherits in ((rooted, True), (rooted / "bin", True), (rooted / "one", False)):
        assert _project(path) == (inherits, number)
    deepest = os.open(rooted / "deep", os.O_RDONLY)
    while names := os.listdir(deepest):
        below = os.open(names[0], os.O_RDONLY, dir_fd=deepest)
        os.close(deepest)
        deepest = below
    assert kernel.attributes(deepest)[1] == number
    os.close(deepest)
    assert _project(disk)[1] == 0
    unmount(rooted / "other")

    def inside(script: str) -> str:
        done = jexec("cell", "/bin/sh", "-c", f"exec 2>&1; {script}")
        return done.stdout

    # It sees the limits, not the disk.
    assert inside("df -k / | tail -1").split()[1] == str(24 * 1024)
    assert inside("df -i / | tail -1").split()[1] == "1500"
    assert _is_full(inside("dd if=/dev/zero of=/big bs=1M count=100"))
    running = registry.find("cell")
    assert running is not None
    assert 23 * M < quota.used(running)[0] <= 24 * M
    until(lambda: quota.used(running) == _limits(disk, number)[2:], "what is counted late has been counted")
    (disk / "the-host-s").write_bytes(bytes(2 * M))
    inside("rm /big")
    assert _is_full(inside(_BOMB))

    # Root inside stays in it.
    for command in ("-p 0 /one", "-p 77 /bin", "-P /bin", "-P /"):
        assert "Invalid argument" in inside(f"/bin/real-chattr {command[0:2]}{command[2:]}")
    assert _project(rooted / "one") == (False, number)
    assert _project(rooted / "bin") == (True, number)
    assert inside("ln one three && mv three /etc/ && mkdir new && cat one") == "one"
    assert _project(rooted / "new") == (True, number)
    with pytest.raises(OSError, match="cross-device"):
        os.link(disk / "the-host-s", rooted / "in")

    # While it runs its limits change, and are lifted.
    assert jail("-m", "name=cell", "ng.quota=32M").returncode == 0
    assert inside("df -k / | tail -1").split()[1] == str(32 * 1024)
    assert jail("-m", "name=cell", "ng.quota=").returncode == 0
    assert _limits(disk, number)[:2] == (0, 0)
    assert jail("-m", "name=cell", "ng.limits=disk:deny=28M").returncode == 0
    assert _limits(disk, number)[:2] == (28 * M, 0)
    assert jail("-m", "name=cell", "ng.quota=30M,inodes=1500").returncode == 0  # the least of both
    assert _limits(disk, number)[:2] == (28 * M, 1500)
    assert _run(checkout / "bin/rctl", "-a", "jail:cell:disk:deny=26M") == ""
    assert _limits(disk, number)[:2] == (26 * M, 1500)

    def is_told() -> bool:
        used = f"disk={_limits(disk, number)[2]}"
        return used in _run(checkout / "bin/rctl", "-u", "jail:cell").split()

    until(is_told, "rctl tells the same")
    assert _run(checkout / "bin/rctl", "-r", "jail:cell:disk") == ""
    assert _limits(disk, number)[:2] == (28 * M, 1500)
    refused = jail("-m", "name=cell", "ng.quota=image:28M")
    assert refused.returncode == 1

    # A command was killed that had changed it, and had not yet told the record: who asks for what was has it.
    found = registry.find("cell")
    assert found is not None and found.lock()
    quota.change(found, Parameters.from_texts({**found.params, "ng.quota": "20M"}))
    found.unlock()
    assert _limits(disk, number)[:2] == (20 * M, 0)
    assert jail("-m", "name=cell", "ng.quota=30M,inodes=1500").returncode == 0
    assert _limits(disk, number)[:2] == (28 * M, 1500)

    # With the jail its limits go; its files stay in the project, and the next start has not to walk.
    assert jail("-r", "cell").returncode == 0
    assert _limits(disk, number)[:2] == (0, 0)
    assert _project(rooted) == (True, number)
    (rooted / "outside").write_bytes(bytes(40 * M) if shutil.disk_usage(disk).free > 60 * M else b"")
    (rooted / "outside").unlink()
    assert jail("-c", "name=cell", f"path={rooted}", "ng.limits=disk:deny=8M", "persist").returncode == 0
    assert _limits(disk, number)[0] == 8 * M
    # No other jail has the tree meanwhile, and none has what lies in it.
    (rooted / "below").mkdir()
    for path in (rooted, rooted / "below"):
        done = jail("-c", "name=second", f"path={path}", "ng.quota=8M", "persist")
        assert done.stderr == f'jail: ng.quota: {path}: jail "cell" runs in that tree\n'
    assert jail("-r", "cell").returncode == 0


def _is_full(said: str) -> bool:
    return "quota exceeded" in said.lower() or "No space left" in said


def test_what_is_somebody_else_s_is_not_taken(rooted: Path, disk: Path, jail: Command) -> None:
    number = project.number(rooted.stat().st_ino)

    def start(path: Path = rooted) -> str:
        done = jail("-c", "name=cell", f"path={path}", "ng.quota=24M", "command=/bin/true")
        return done.stderr.removeprefix(f"jail: ng.quota: {path}: ").rstrip("\n")

    # A project of the administrator's, of the tree or in it.
    _run("chattr", "-p", "42", rooted)
    assert start().startswith("already in project 42, which jailng has not made: ")
    _run("chattr", "-p", "0", rooted)
    _run("chattr", "-p", "42", rooted / "deep")
    assert start() == f"jail: ng.quota: {rooted}/deep: already in project 42, which jailng has not made"
    assert _project(rooted) == (False, number)  # so that the next start goes on
    _run("chattr", "-p", "0", rooted / "deep")
    assert start() == ""
    assert _project(rooted / "deep") == (True, number)
    # What lies in the tree of a jail with a quota, and what has been moved out of it.
    (rooted / "bin/inner").mkdir()
    assert start(rooted / "bin") == "in the tree of another jail that has a quota"
    _run("mv", rooted / "bin", disk / "moved")
    (disk / "moved/bin").mkdir()
    _run("cp", disk / "moved/busybox", disk / "moved/bin/true")
    assert start(disk / "moved") == ""
    own = project.number((disk / "moved").stat().st_ino)
    assert _project(disk / "moved/busybox") == (False, own)
    _run("chattr", "-p", str(own), rooted / "one")
    _run("chattr", "-p", "0", disk / "moved")
    assert start(disk / "moved") == f"project {own} is that of other files on this file system"


def test_a_walk_that_is_killed_goes_on(rooted: Path, disk: Path, checkout: Path, jail: Command, tmp_path: Path) -> None:
    given = ["-c", "name=cell", f"path={rooted}", "ng.quota=24M", "command=/bin/true"]
    program = str(checkout / "bin/jail")
    number = project.number(rooted.stat().st_ino)
    for call, count in (("ioctl", 1), ("ioctl", 200), ("quotactl_fd", 3)):
        faults.run(faults.Step(call, count, ""), "signal=SIGKILL", program, *given)
        assert jail(*given).returncode == 0
        for path, inherits in ((rooted, True), (rooted / "deep", True), (rooted / "one", False)):
            assert _project(path) == (inherits, number)
        assert _limits(disk, number)[:2] == (0, 0)
        _run("chattr", "-P", rooted)  # it is not complete, and some have gone
        _run("chattr", "-p", "0", rooted / "one", rooted / "deep", rooted / "bin/busybox")


def test_a_device_is_found_by_the_file_under_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(M))
    with file.open("r+b") as opened:
        assert loop.over(opened.fileno()) == ""
        path, device = loop.attach(opened.fileno(), str(file))
        assert loop.over(opened.fileno()) == path
        os.close(device)
        assert _lies_under(tmp_path) == []
        assert loop.over(opened.fileno()) == ""


def test_what_has_no_quota_tells_of_none(small_root: Path, jail: Command) -> None:
    assert jail("-c", "name=cell", f"path={small_root}", "persist").returncode == 0
    found = registry.find("cell")
    assert found is not None
    with pytest.raises(JailError, match="from its start on"):
        quota.used(found)
    done = jail("-m", "name=cell", "ng.quota=8M")
    assert done.stderr == "jail: ng.quota: a jail has it from its start on: start it anew\n"
    assert jail("-r", "cell").returncode == 0
    assert image.of(found) == ""
    assert not [one for one in mounts() if one.target == str(small_root)]


def test_a_program_that_is_missing_is_named() -> None:
    with pytest.raises(JailError, match=r"^mkfs\.none is not installed \(package e2fsprogs\)$"):
        image._run(["mkfs.none"], [])


def test_of_two_limits_the_last_counts() -> None:
    params = Parameters()
    params.add("ng.limits", "disk:deny=16M,disk:log=1M,disk:deny=64M")
    asked = quota.wanted(params)
    assert asked is not None and asked.bytes == 64 * M
    least = quota.wanted(params, f"disk:deny={8 * M}")
    assert least is not None and least.bytes == 8 * M
