"""The disks of the machine: a Debian with its own cloud kernel, made once and kept, and the checkout, made every time.

No initramfs of ours and no kernel of ours: mmdebstrap(1) installs Debian's packages, and those make them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.kernel import booted, bootstrapped, debian, guests, hostile

_KERNEL = ("linux-image-cloud-amd64", "systemd-sysv", "dbus", "udev", "kmod")
# What the tests would make with mmdebstrap, and the machine has no network to do it.
_RECIPES = (
    debian.PLAIN,
    debian.POSTGRESQL,
    debian.TERMINALS,
    debian.BARE,
    debian.OLDEST,
    debian.CALLERS,
    hostile.RECIPE,
    booted.SYSTEMD,
    booted.SYSVINIT,
    guests.SYSTEMD,
    guests.SYSVINIT,
    guests.OPENRC,
)
_CARRIED = (
    "CHANGES.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "pyproject.toml",
    "bin",
    "docs",
    "jailinit",
    "man",
    "package",
    "share",
    "shims",
    "src",
    "tests",
    "typings",
    "userland",
)
# Tools of the other parts of ./check, which take most of the room.
_LEFT_BEHIND = ("mypy*", "*__mypyc*", "ruff*", "grimp*", "pip*")

_HERE = Path(__file__).resolve().parent
CHECKOUT = _HERE.parent.parent


@dataclass(frozen=True)
class System:
    """What boots: the root's image, and the kernel and the initramfs that Debian's packages made in it."""

    root: Path
    kernel: Path
    initramfs: Path
    release: str


def make(packages: tuple[str, ...], say: Callable[[str], None]) -> System:
    """The system with these packages, made now if it was not before.

    Raises RuntimeError with the end of what mmdebstrap or mke2fs said.
    """
    # Whatever the image is made of.
    settings = [(_HERE / name).read_text() for name in ("guest.service", "guest-boot.service", "image.py")]
    roots = [debian.make(recipe, say=say) for recipe in _RECIPES]
    bootstrap = bootstrapped.make(say)
    recipe = debian.Recipe(tuple(sorted({*_KERNEL, *packages})))
    words = [*recipe.arguments, *settings, *map(str, [*roots, *bootstrap])]
    kept = debian.CACHE / f"vm-{hashlib.sha256(chr(0).join(words).encode()).hexdigest()[:16]}"
    with open(debian.CACHE / "vm.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            for old in debian.CACHE.glob("vm-*"):  # another list of packages, or a run that was interrupted
                shutil.rmtree(old)
            started = time.monotonic()
            say("making a Debian with its cloud kernel and systemd, by mmdebstrap: about a minute")
            new = debian.CACHE / "vm-new"
            _make(recipe, roots, bootstrap, new)
            new.rename(kept)
            say(f"made {kept} in {time.monotonic() - started:.0f} s")
    return System(kept / "root.ext4", kept / "vmlinuz", kept / "initrd.img", (kept / "release").read_text())


def _make(recipe: debian.Recipe, roots: list[Path], bootstrap: list[Path], new: Path) -> None:
    new.mkdir()
    root = new / "root"
    _run("mmdebstrap", *recipe.arguments, str(root))
    for name in ("vmlinuz", "initrd.img"):
        shutil.copyfile(root / name, new / name)
    release = os.readlink(root / "vmlinuz").rpartition("/vmlinuz-")[2]
    (new / "release").write_text(release)
    shutil.rmtree(root / "var/cache/apt")
    (root / "var/cache/apt/archives/partial").mkdir(parents=True)
    cache = root / "var/cache/jailng-tests"
    cache.mkdir(mode=0o700)
    for made in roots:
        debian.copy(made.parent, cache / made.parent.name)
    (cache / bootstrapped.KEPT.name).mkdir(mode=0o700)
    for tar in bootstrap:
        debian.copy(tar, cache / bootstrapped.KEPT.name)
    # jailctl bootstrap finds in its cache what was made of the same sources.
    for name in ("sources.list", "sources.list.d"):
        _run("rm", "-rf", str(root / "etc/apt" / name))
        if Path("/etc/apt", name).exists():
            debian.copy(Path("/etc/apt", name), root / "etc/apt" / name)
    (root / "etc/hostname").write_text("jailng-vm\n")
    (root / "etc/fstab").write_text("LABEL=checkout /srv/checkout ext4 defaults 0 0\n")
    (root / "srv/checkout").mkdir()
    units = root / "etc/systemd/system"
    wants = units / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    for source, unit in (("guest.service", "jailng-tests.service"), ("guest-boot.service", "jailng-boot.service")):
        shutil.copyfile(_HERE / source, units / unit)
        (wants / unit).symlink_to(f"../{unit}")
    (units / "tmp.mount").symlink_to("/dev/null")  # it is nosuid, and the tests have roots of jails in /tmp
    for section in ("man5", "man8"):  # left out by the recipe's path-exclude; `make uninstall` leaves directories
        (root / "usr/share/man" / section).mkdir(parents=True, exist_ok=True)
    (units / "default.target").symlink_to("/usr/lib/systemd/system/multi-user.target")
    image(root, new / "root.ext4", "root", "6G")
    shutil.rmtree(root)


@contextmanager
def carried(wanted: list[str], boots: bool = False) -> Iterator[Path]:
    """An image with the checkout and its .venv as they are now, and pytest's arguments; it is gone afterwards.

    With ``boots`` it is for the test of booting, and has none.
    """
    with tempfile.TemporaryDirectory(prefix="jailng-vm-") as directory:
        tree = Path(directory, "tree")
        tree.mkdir()
        ignore = shutil.ignore_patterns(*_LEFT_BEHIND)
        for name in (*_CARRIED, ".venv"):
            source = CHECKOUT / name
            if source.is_dir():
                shutil.copytree(source, tree / name, symlinks=True, ignore=ignore)
            elif source.exists():
                shutil.copy2(source, tree / name)
        if boots:
            (tree / "boot").touch()
        (tree / "wanted").write_text("".join(f"{word}\n" for word in wanted))
        made = Path(directory, "checkout.ext4")
        image(tree, made, "checkout", "1G")
        shutil.rmtree(tree)
        yield made


def image(tree: Path, target: Path, label: str, size: str) -> None:
    """An ext4 file system with that tree in it. Raises RuntimeError."""
    _run("mke2fs", "-q", "-t", "ext4", "-L", label, "-d", str(tree), str(target), size)


def _run(*argv: str) -> None:
    words = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(argv, text=True, check=False, **words)  # type: ignore[call-overload]
    if done.returncode:
        raise RuntimeError(f"{argv[0]} failed:\n{done.stdout[-4000:]}")
