"""What a Debian root is made of: suite, architecture, packages, and the sources that the host's own apt has."""

from __future__ import annotations

import hashlib
import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from jailng.errors import JailError

# What FreeBSD's base system has of its own, and the article's userland boots by.
BASE = (
    "adduser cron inetutils-ftpd inetutils-syslogd init-system-helpers iproute2 iputils-ping login net-tools netbase "
    "openbsd-inetd openssh-client openssh-server passwd procps sysvinit-utils tcsh"
).split()
# Of each row a root has one: whoever asks for another does not get the base's.
_INSTEAD = {
    "inetutils-syslogd": "busybox-syslogd rsyslog syslog-ng syslog-ng-core",
    "openbsd-inetd": "inetutils-inetd rlinetd xinetd",
    "cron": "bcron cronie systemd-cron",
    "inetutils-ftpd": "ftpd-ssl proftpd-core pure-ftpd vsftpd",
}
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?")
_SUITE = re.compile(r"[a-z][a-z0-9.-]*")
# These have neither updates nor a security archive.
_MOVING = ("unstable", "sid", "experimental")
# Another form of root, another key: raised when what is in the cached tar changes.
_FORM = "1"


@dataclass(frozen=True)
class Source:
    """An entry of sources.list(5), for binary packages."""

    uris: str
    suites: str
    components: str
    signed_by: str = ""
    trusted: str = ""

    def text(self, types: str = "deb") -> str:
        """The entry as a paragraph of the deb822 format."""
        lines = [f"Types: {types}", f"URIs: {self.uris}", f"Suites: {self.suites}"]
        lines += [f"Components: {self.components}"] if self.components else []
        lines += [f"Signed-By: {self.signed_by}"] if self.signed_by else []
        lines += [f"Trusted: {self.trusted}"] if self.trusted else []
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Recipe:
    """All that decides what is in a root before anybody has touched it."""

    suite: str
    architecture: str
    packages: tuple[str, ...]
    sources: tuple[Source, ...]

    @property
    def key(self) -> str:
        """The name of the root in the cache: readable at the front, and another one for whatever differs."""
        words = [_FORM, self.suite, self.architecture, *self.packages, *[source.text() for source in self.sources]]
        digest = hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]
        return f"{self.suite}-{self.architecture}-{digest}"


def packages(asked: list[str]) -> tuple[str, ...]:
    """The packages of a root, sorted: the base and what ``--include`` asks for, each argument a list with commas.

    Raises JailError for what cannot be a package's name (Debian Policy 5.6.7).
    """
    words = [word for text in asked for word in re.split(r"[\s,]+", text) if word]
    for word in words:
        if not _PACKAGE.fullmatch(word):
            raise JailError(f"bootstrap: --include {word}: not the name of a package")
    replaced = {base for base, others in _INSTEAD.items() if set(others.split()) & set(words)}
    return tuple(sorted({*words, *[name for name in BASE if name not in replaced or name in words]}))


def host_suite(os_release: str | None = None) -> str:
    """The suite that this host runs: os-release(5), VERSION_CODENAME. Raises JailError if it says none."""
    text = Path("/etc/os-release").read_text() if os_release is None else os_release
    found = re.search(r'^VERSION_CODENAME="?([^"\n]+)', text, re.MULTILINE)
    if not found:
        raise JailError("bootstrap: /etc/os-release names no suite: give --suite")
    return found[1]


def architecture() -> str:
    """The host's architecture as Debian calls it."""
    done = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True)
    return done.stdout.strip() or platform.machine()


def check_suite(suite: str) -> str:
    """The suite as it was given. Raises JailError for what cannot be one."""
    if not _SUITE.fullmatch(suite):
        raise JailError(f"bootstrap: --suite {suite}: not the name of a suite")
    return suite


def host_sources(suite: str, host: str, etc: Path = Path("/etc/apt")) -> tuple[Source, ...]:
    """The host's own sources, turned from its suite to ``suite``.

    An entry that is of neither is left out, as is one that reads from the host's own disk, where a root cannot follow.
    Raises JailError if nothing is left.
    """
    found, unfit = [], ""
    for source in _parsed(etc):
        uris = " ".join([uri for uri in source.uris.split() if re.match(r"(https?|tor\+https?|ftp)://", uri)])
        suites = " ".join(_turned(source.suites.split(), suite, host))
        if uris and suites:
            found.append(Source(uris, suites, source.components, source.signed_by, source.trusted))
        elif suites:
            unfit = source.uris
    if unfit and not found:
        why = "a root is made of what http, https or ftp reach"
        raise JailError(f"bootstrap: {etc} has the suite {host} at {unfit} alone: {why}")
    if not found:
        raise JailError(f"bootstrap: no source of {etc} has the suite {host}: see sources.list(5)")
    return tuple(found)


def _turned(suites: list[str], wanted: str, host: str) -> list[str]:
    turned = []
    for suite in suites:
        base, dash, rest = suite.partition("-")
        if base not in (host, wanted) or rest not in ("", "updates", "security"):
            continue
        if dash and wanted in _MOVING:
            continue
        if f"{wanted}{dash}{rest}" not in turned:
            turned.append(f"{wanted}{dash}{rest}")
    return turned


def _parsed(etc: Path) -> list[Source]:
    lists = [etc / "sources.list", *sorted(etc.glob("sources.list.d/*.list"))]
    found = [source for path in lists if path.is_file() for source in _one_line(path.read_text(errors="replace"))]
    for path in sorted(etc.glob("sources.list.d/*.sources")):
        found += deb822(path.read_text(errors="replace"))
    return found


def _one_line(text: str) -> list[Source]:
    """The entries of a file in sources.list(5)'s one-line format."""
    found = []
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s*([^#]*)", line)
        if match:
            options = dict(word.partition("=")[::2] for word in (match[1] or "").split())
            signed, trusted = options.get("signed-by", ""), options.get("trusted", "")
            found.append(Source(match[2], match[3], " ".join(match[4].split()), signed, trusted))
    return found


def deb822(text: str) -> list[Source]:
    """The entries of a file in sources.list(5)'s deb822 format. A key written into the file itself is kept."""
    found = []
    for paragraph in re.split(r"\n[ \t]*\n", re.sub(r"^#.*\n?", "", text, flags=re.MULTILINE)):
        fields: dict[str, str] = {}
        name = ""
        for line in paragraph.splitlines():
            if line[:1] in (" ", "\t") and name:
                fields[name] += "\n" + line
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false"):
            continue
        uris, suites, components = (" ".join(fields.get(n, "").split()) for n in ("uris", "suites", "components"))
        found.append(Source(uris, suites, components, fields.get("signed-by", ""), fields.get("trusted", "")))
    return found
