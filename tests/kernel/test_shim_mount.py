"""The shims ``mount``, ``mount_nullfs`` and ``umount``: FreeBSD's types, as hooks of jail.conf(5) have them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailng.ctl.mount import USAGE
from tests.kernel.conftest import Shim
from tests.kernel.stage import mount


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, shared as a host's are."""
    made = tmp_path / "place"
    made.mkdir()
    mount("none", made, "tmpfs")
    subprocess.run(["mount", "--make-shared", made], check=True)
    for name in ("data/below", "here"):
        (made / name).mkdir(parents=True)
    (made / "data/file").write_text("seen\n")
    yield made
    subprocess.run(["umount", "-R", "-l", made], check=True)


def mounted(where: Path) -> list[str]:
    """The options of what is mounted there."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[5] for line in lines if line.split()[4] == str(where)]


@pytest.mark.parametrize(
    "words",
    [("mount", "-t", "nullfs", "-o", "ro,late"), ("mount", "-r", "-tnullfs"), ("mount_nullfs", "-o", "rdonly")],
)
def test_nullfs(shim: Shim, place: Path, words: tuple[str, ...]) -> None:
    done = shim(*words, str(place / "data"), str(place / "here"))
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert (place / "here/file").read_text() == "seen\n"
    (options,) = mounted(place / "here")
    assert "ro" in options.split(",")
    # What is mounted below the one does not come to be below the other.
    assert shim("mount", "-t", "tmpfs", "none", str(place / "here/below")).returncode == 0
    assert mounted(place / "data/below") == []
    assert shim("umount", str(place / "here/below")).returncode == 0
    assert shim("umount", "-f", str(place / "here")).returncode == 0
    assert mounted(place / "here") == []


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (
            ("-t", "devfs", "devfs"),
            "devfs: not mounted on the host: a jail has a /dev of its own: mount.devfs, devfs_ruleset",
        ),
        (
            ("-t", "fdescfs", "none"),
            "fdescfs: not mounted on the host: it is in the /dev that a jail has of its own: mount.fdescfs",
        ),
        (
            ("-t", "linprocfs", "none"),
            "linprocfs: not mounted on the host: a jail has a /proc of its own: mount.procfs",
        ),
        (
            ("-f", "-t", "nullfs", "/tmp"),
            f"option -f not recognized\n{USAGE}",
        ),
        (("-t", "nullfs"), USAGE),
    ],
)
def test_what_is_not_mounted(shim: Shim, place: Path, words: tuple[str, ...], why: str) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    done = shim("mount", *words, str(place / "here"))
    assert (done.stdout, done.stderr, done.returncode) == ("", f"mount: {why}\n", 1)
    assert Path("/proc/self/mountinfo").read_text() == before


def test_the_hosts_own_says_what_it_says(shim: Shim, place: Path) -> None:
    for words in (("mount", "-t", "nosuchfs", "none", str(place / "here")), ("umount", str(place / "here"))):
        real = subprocess.run(words, capture_output=True, text=True)
        done = shim(*words)
        assert (done.stdout, done.stderr, done.returncode) == (real.stdout, real.stderr, real.returncode)
        assert done.returncode


def test_all_of_a_file(shim: Shim, place: Path, tmp_path: Path) -> None:
    """BastilleBSD's and iocage's way to mount what a jail has, and to take it away."""
    (place / "with space").mkdir()
    fstab = tmp_path / "fstab"
    fstab.write_text(
        f"{place}/data {place}/here nullfs rw 0 0\n{place}/data {place}/with\\040space nullfs ro 0 0\n"
        f"# nothing\n{place}/data {place}/nowhere nullfs ro,noauto 0 0\n"
    )
    for words in (("-aF", str(fstab)), ("-F", str(fstab), "-a")):  # twice is as once
        done = shim("mount", *words)
        assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    (options,) = mounted(place / "here")
    assert "rw" in options.split(",")
    (options,) = mounted(place / "with\\040space")
    assert "ro" in options.split(",")
    done = shim("umount", "-afF", str(fstab))
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert mounted(place / "here") == mounted(place / "with\\040space") == []
    fstab.write_text(f"devfs {place}/here devfs rw 0 0\nnone {place}/here tmpfs rw 0 0\n")
    done = shim("mount", "-a", "-F", str(fstab))
    why = "not mounted on the host: a jail has a /dev of its own: mount.devfs, devfs_ruleset"
    assert (done.stderr, done.returncode) == (f"mount: {place}/here: devfs: {why}\n", 1)
    assert len(mounted(place / "here")) == 1
    assert shim("umount", "-a", "-F", str(fstab)).returncode == 0
    done = shim("umount", "-a", "-F", f"{fstab}.none")
    assert (done.stderr, done.returncode) == (f"umount: {fstab}.none: No such file or directory\n", 1)


def test_in_a_hook(place: Path, checkout: Path, small_root: Path, tmp_path: Path) -> None:
    """By FreeBSD's paths, before the jail takes along what is mounted below its root, and after it."""
    (small_root / "mnt").mkdir()
    config = tmp_path / "jail.conf"
    config.write_text(
        f"""cell {{
            path = "{small_root}";
            exec.clean;
            exec.prestart = "/sbin/mount -t nullfs -o ro {place}/data $path/mnt";
            exec.start = "cat /mnt/file";
            exec.poststop = "/sbin/umount -f $path/mnt";
            persist;
        }}
        """
    )
    environment = {"PATH": f"{checkout}/shims:/usr/sbin:/usr/bin:/sbin:/bin"}

    def jail(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [str(checkout / "bin/jail"), "-q", "-f", str(config), *words, "cell"]
        return subprocess.run(argv, capture_output=True, text=True, env=environment)

    done = jail("-c")
    assert (done.stdout, done.stderr, done.returncode) == ("seen\n", "", 0)
    done = jail("-r")
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert mounted(small_root / "mnt") == []


@pytest.mark.parametrize("program", ["mount -t nullfs", "/sbin/mount -t nullfs", "mount_nullfs", "/sbin/mount_nullfs"])
def test_a_hook_mounts_nothing_through_a_link_of_a_jails_root(
    place: Path, checkout: Path, small_root: Path, tmp_path: Path, program: str
) -> None:
    (small_root / "mnt").symlink_to(place / "here")
    config = tmp_path / "jail.conf"
    config.write_text(
        f'cell {{ path = "{small_root}"; exec.prestart = "{program} {place}/data $path/mnt"; persist; }}\n'
    )
    environment = {"PATH": f"{checkout}/shims:/usr/sbin:/usr/bin:/sbin:/bin"}
    argv = [str(checkout / "bin/jail"), "-q", "-f", str(config), "-c", "cell"]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment)
    assert (done.stdout, done.returncode) == ("", 1)
    assert "link" in done.stderr and done.stderr.count("\n") == 1
    assert mounted(place / "here") == []
