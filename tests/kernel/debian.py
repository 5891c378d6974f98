"""Roots for jails: a Debian made by mmdebstrap once and kept, and a small one of busybox made in a moment.

``python3 -m tests.kernel.debian`` makes what is not there yet, so that ./check can show what takes so long.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

# No other user of the host may reach a root: what is setuid in it is setuid for them too.
CACHE = Path(os.environ.get("JAILNG_TEST_CACHE", "/var/cache/jailng-tests"))


@dataclass(frozen=True)
class Recipe:
    """What mmdebstrap(1) makes. Another recipe is another root."""

    packages: tuple[str, ...]
    suite: str = "trixie"
    hooks: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        """mmdebstrap's options and the suite."""
        without = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "info", "locale", "man")]
        return [
            "--mode=root",
            "--variant=minbase",
            "--components=main",
            '--aptopt=Acquire::Languages "none"',
            *without,
            f"--include={','.join(self.packages)}",
            *(f"--customize-hook={hook}" for hook in self.hooks),
            self.suite,
        ]

    @property
    def directory(self) -> Path:
        """Where the root is kept."""
        return CACHE / hashlib.sha256("\0".join(self.arguments).encode()).hexdigest()[:16]


_PACKAGES = ("adduser", "cron", "iproute2", "iputils-ping", "login", "openssh-server", "passwd", "procps", "util-linux")
# On what the Debian package depends: package/build.
DEPENDS = ("mount", "nftables", "python3", "python3-nftables", "python3-seccomp")


@dataclass(frozen=True)
class Bare(Recipe):
    """A Debian of the essential packages and apt, with manuals and all."""

    @property
    def arguments(self) -> list[str]:
        """mmdebstrap's options and the suite."""
        options = ["--mode=root", "--variant=apt", "--components=main", '--aptopt=Acquire::Languages "none"']
        return [*options, "--skip=cleanup/apt", *(f"--customize-hook={hook}" for hook in self.hooks), self.suite]


# The archive's index stays in it, and the packages lie where apt has downloaded them: what follows needs no network.
_DOWNLOAD = f'chroot "$1" apt-get -q -y --no-install-recommends --download-only install {" ".join(DEPENDS)}'
BARE = Bare(packages=(), hooks=(_DOWNLOAD,))
OLDEST = Bare(packages=(), suite="bookworm", hooks=(_DOWNLOAD,))  # Python 3.11, libseccomp 2.5, util-linux 2.38
PLAIN = Recipe(_PACKAGES, hooks=('rm -f "$1"/etc/ssh/ssh_host_*', 'chroot "$1" ssh-keygen -q -A'))
PYTHON = Recipe(("iproute2", "login", "passwd", "procps", "python3", "util-linux"))
CALLERS = Recipe((*DEPENDS, "at", "cron", "sudo"))  # a host on which others run jailng's commands
TERMINALS = Recipe((*_PACKAGES, "python3", "screen", "vim-tiny"), hooks=PLAIN.hooks)
POSTGRESQL = Recipe(("postgresql", "procps"))
# sshd(8) is in the background before it listens, and says whose it is when it does.
LISTENS = "until [ -s /run/sshd.pid ]; do sleep 0.1; done"


def make(recipe: Recipe, prepare: Callable[[], None] | None = None, say: Callable[[str], None] = print) -> Path:
    """The root of that recipe, made now if it was not before. Treat it as read only: it is everybody's.

    ``prepare`` is called in the process that becomes mmdebstrap, ``say`` with a line of progress. Raises RuntimeError
    with the end of what mmdebstrap said.
    """
    CACHE.mkdir(mode=0o700, parents=True, exist_ok=True)
    CACHE.chmod(0o700)
    root = recipe.directory / "root"
    with open(CACHE / f"{recipe.directory.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if root.exists():
            return root
        started = time.monotonic()
        packages = " ".join(recipe.packages) or "no more than apt"
        say(f"making a Debian {recipe.suite} with {packages}: about half a minute")
        new = recipe.directory.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        done = subprocess.run(
            ["mmdebstrap", *recipe.arguments, str(new / "root")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=prepare,
        )
        if done.returncode:
            raise RuntimeError(f"mmdebstrap failed:\n{done.stdout[-4000:]}")
        new.rename(recipe.directory)
        say(f"made {root} in {time.monotonic() - started:.0f} s")
        return root


def copy(root: Path, target: Path) -> Path:
    """A copy of a root to write to, as cheap as the file system has it."""
    subprocess.run(["cp", "-a", "--reflink=auto", str(root), str(target)], check=True)
    return target


def small(target: Path) -> Path:
    """A root of one static program, for whatever needs no Debian: busybox(1) under all its names."""
    for name in ("bin", "dev", "etc", "proc", "root", "run", "tmp", "usr/bin", "var/tmp"):
        (target / name).mkdir(parents=True)
    for name in ("tmp", "var/tmp"):
        (target / name).chmod(0o1777)
    busybox = shutil.which("busybox")
    if busybox is None:
        raise FileNotFoundError("busybox: not found (package busybox-static)")
    shutil.copy(busybox, target / "bin/busybox")
    for name in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if name != "busybox":
            (target / "bin" / name).symlink_to("busybox")
    (target / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nalice:x:1001:1001:Alice:/tmp:/bin/sh\n")
    (target / "etc/group").write_text("root:x:0:\nalice:x:1001:\nstaff:x:50:alice\n")
    return target


def _tell(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    with ThreadPoolExecutor(2) as makers:  # of two processors each keeps one busy
        for _ in makers.map(
            lambda one: make(one, say=_tell), (PLAIN, POSTGRESQL, TERMINALS, OLDEST, BARE, PYTHON, CALLERS)
        ):
            pass
