"""A Debian root on the disk: made beside its place and renamed into it, with a copy kept for the next one.

A root in the making is PATH.partial. Whoever makes it holds a lock, which the kernel lets go of when he is killed; what
he has started bears PATH.partial in its environment. So the next one finds both, ends what still runs, saves the
packages that were fetched, and begins anew.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jailng.core import rootfs
from jailng.ctl import place
from jailng.ctl.progress import Progress
from jailng.ctl.recipe import Recipe
from jailng.errors import JailError

CACHE = Path("/var/cache/jailng/roots")
# Days, after which one is told how old a kept copy is.
_FRESH = 7
_MARK = "JAILNG_BOOTSTRAP"
_ENVIRONMENT = 1 << 20  # bytes of one that are looked at
_ARCHIVES = "var/cache/apt/archives"
_NEEDED = (("mmdebstrap", "mmdebstrap"), ("apt-get", "apt"), ("dpkg", "dpkg"), ("tar", "tar"))
# What apt is told about its way to the archive holds for the host alone, so it goes again when the root is there.
_HOST_APT = "etc/apt/apt.conf.d/00host"


def check_tools() -> None:
    """Raises JailError that names what is not installed."""
    missing = sorted({package for program, package in _NEEDED if not shutil.which(program)})
    if missing:
        raise JailError(f"bootstrap: not installed: apt-get install {' '.join(missing)}")
    if os.geteuid() != 0:
        raise JailError("bootstrap: Operation not permitted: only root can")


class Root:
    """A root in the making, from ``with`` on until ``finish``."""

    def __init__(self, path: Path, recipe: Recipe, cache: Path, keep: bool, progress: Progress) -> None:
        self.path = path
        self.partial = place.partial(path)
        self.recipe = recipe
        self.cache = cache
        self.keep = keep
        self.progress = progress
        self.kept = cache / f"{recipe.key}.tar"
        self.log = cache / f"{recipe.key}.log"

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Two that want the same of the cache take turns, and the second finds what the first has kept."""
        with open(self.cache / name, "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.progress.waiting()
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def making(self) -> Iterator[None]:
        """Nobody else makes this root; whatever ends this, nothing that looks like one is left."""
        if not self.cache.exists():
            self.cache.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self.cache.mkdir(mode=0o700)
        status = self.cache.stat()
        if not self.cache.is_dir() or status.st_uid != 0 or status.st_mode & 0o022:
            raise JailError(f"bootstrap: {self.cache}: others than root may write to it, so it is no place for a cache")
        with place.alone(self.path, "bootstrap", self._clear):
            yield

    def fill(self) -> str:
        """The tree itself, out of the cache or from the archive; returns which. Raises JailError."""
        with self._alone(f"{self.recipe.key}.lock"):
            return self._unpack() or self._make()

    def _unpack(self) -> str:
        if not self.keep or not self.kept.exists():
            return ""
        self.progress.unpacking()
        self.partial.mkdir(mode=0o755)
        if self._tar("-xf", str(self.kept), "-C", str(self.partial)):
            days = int(time.time() - self.kept.stat().st_mtime) // (24 * 3600)
            return f"as kept {days} days ago (--no-cache makes it anew)" if days > _FRESH else "from the cache"
        self.kept.unlink()
        self._clear()
        return ""

    def _make(self) -> str:
        self._mmdebstrap()
        self._save_archives()
        self._trim()
        if self.keep:
            self.progress.keeping()
            new = self.kept.with_suffix(".new")
            if self._tar("-cf", str(new), "-C", str(self.partial), "."):
                new.rename(self.kept)
            else:
                new.unlink(missing_ok=True)
        return "new"

    def installed(self) -> list[str]:
        """The packages in the finished root."""
        return [path.name for path in (self.path / "var/lib/dpkg/info").glob("*.list")]

    def finish(self) -> None:
        """Give the root its name. It is on the disk by then."""
        self.partial.rename(self.path)

    def _tar(self, *arguments: str) -> bool:
        words = ["tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", *arguments]
        return (
            subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, env=self._environment).returncode == 0
        )

    @property
    def _environment(self) -> dict[str, str]:
        """No variable of the caller's steers maintainer scripts."""
        known = {name: os.environ[name] for name in ("http_proxy", "https_proxy", "no_proxy") if name in os.environ}
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {**known, "PATH": path, "LC_ALL": "C.UTF-8", "HOME": "/root", _MARK: str(self.partial)}

    def _mmdebstrap(self) -> None:
        archives = self.cache / "archives"
        archives.mkdir(mode=0o700, exist_ok=True)
        sources = self.cache / f"{self.recipe.key}.sources"
        sources.write_text("\n".join([source.text() for source in self.recipe.sources]))
        host = self.cache / f"{self.recipe.key}.apt"
        host.write_text(_apt_settings())
        settings = f'mkdir -p "$1/{_ARCHIVES}" "$1/etc/apt/apt.conf.d"; cp "{host}" "$1/{_HOST_APT}"'
        # A link costs nothing; where the cache is on another file system, a copy.
        link = f'cp -l "$deb" "$1/{_ARCHIVES}/" 2>/dev/null || cp "$deb" "$1/{_ARCHIVES}/"'
        words = ["mmdebstrap", "--verbose", "--mode=root", "--variant=minbase", "--format=directory"]
        words += [f"--architectures={self.recipe.architecture}", f"--include={','.join(self.recipe.packages)}"]
        words += ["--skip=essential/unlink", "--skip=cleanup/apt/cache", f"--setup-hook={settings}"]
        words += [f'--setup-hook=find "{archives}" -name "*.deb" | while read -r deb; do {link}; done']
        words += [self.recipe.suite, str(self.partial), str(sources)]
        first = ""
        with open(self.log, "w") as log:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, errors="replace", env=self._environment,
            )  # fmt: skip
            assert process.stdout is not None
            for line in process.stdout:
                log.write(line)
                if line.startswith("E: ") and not first:
                    first = line[3:].strip()
                self.progress.hear(line.rstrip())
            status = process.wait()
        if status:
            raise JailError(f"bootstrap: mmdebstrap: {first or f'status {status}'} (all of it: {self.log})")

    def _trim(self) -> None:
        """What a root has from being made, and must not have."""
        root = self.partial
        for pattern in (f"{_ARCHIVES}/*.deb", "etc/ssh/ssh_host_*", _HOST_APT, "var/cache/apt/*.bin", "var/log/*.log"):
            for path in root.glob(pattern):
                path.unlink()
        # Devices come with the ruleset when the jail starts; what is on the disk is a place to mount that on.
        for path in (root / "dev").iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        (root / "etc/machine-id").write_text("")

    def _save_archives(self) -> None:
        """Keep what was fetched whole: apt gives a package this name only when its checksum is right."""
        archives = self.cache / "archives"
        with self._alone("archives.lock"):
            self._save_into(archives)

    def _save_into(self, archives: Path) -> None:
        for package in (self.partial / _ARCHIVES).glob("*.deb"):
            if not (archives / package.name).exists() and not package.is_symlink():
                new = archives / (package.name + ".new")
                shutil.copyfile(package, new)
                new.rename(archives / package.name)

    def _clear(self) -> None:
        """End what an earlier one has left running, take its mounts away, and its tree. Raises JailError."""
        _kill(str(self.partial))
        if not os.path.lexists(self.partial):
            return
        for _ in range(3):
            for below in reversed(_mounts(self.partial)):
                subprocess.run(["umount", "-l", below], capture_output=True)
        if _mounts(self.partial):
            raise JailError(f"bootstrap: {self.partial}: something is mounted there: {_mounts(self.partial)[0]}")
        with suppress(OSError):
            self._save_archives()
        subprocess.run(["rm", "-rf", "--one-file-system", str(self.partial)], capture_output=True)
        if os.path.lexists(self.partial):
            raise JailError(f"bootstrap: {self.partial}: cannot be removed")


def _apt_settings() -> str:
    """What the host tells apt of its way to the archive, as apt.conf(5)."""
    done = subprocess.run(["apt-config", "dump", "--format", "%F %v%n", "Acquire"], capture_output=True, text=True)
    lines = []
    for line in done.stdout.splitlines():
        name, _, value = line.partition(" ")
        words = name.lower()
        if value and (words.endswith("::proxy") or words in ("acquire::check-valid-until", "acquire::check-date")):
            lines.append(f'{name} "{value}";\n')
    return "".join(lines)


def _mounts(path: Path) -> list[str]:
    """The places at that path, and below it, on which something is mounted."""
    places = [os.fsdecode(rootfs.unescape(fields[4])) for fields in rootfs.mounts()]
    return [place for place in places if place == str(path) or place.startswith(f"{path}/")]


def _kill(mark: str) -> None:
    """Kill every process that was started to make this root, until there is none."""
    wanted = f"\0{_MARK}={mark}\0".encode("utf-8", "surrogateescape")
    for _ in range(100):
        numbers = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
        found = [pidfd for pid in numbers if (pidfd := _bearing(wanted, pid)) is not None]
        if not found:
            return
        for pidfd in found:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        for pidfd in found:
            ended = select.poll()
            ended.register(pidfd, select.POLLIN)
            ended.poll(5000)
            os.close(pidfd)


def _bearing(wanted: bytes, pid: int) -> int | None:
    """A pidfd of the process, if its environment has that: the number may be another's by when it is to be killed."""
    if pid == os.getpid():
        return None
    with suppress(OSError):
        pidfd = os.pidfd_open(pid)
        with suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            # What a process calls its environment may be all of its address space (PR_SET_MM_MAP).
            if wanted in b"\0" + file.read(_ENVIRONMENT):
                return pidfd
        os.close(pidfd)
    return None
