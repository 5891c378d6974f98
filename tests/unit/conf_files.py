"""Configuration files that a test gives, and no others."""

from __future__ import annotations

import fnmatch

from jailng.conf.config import Config, load


class Given:
    """Files by their names; the one that is called "-" is standard input."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.opened: list[str] = []

    def read(self, path: str) -> bytes:
        self.opened.append(path)
        if path.endswith("/"):
            raise IsADirectoryError(21, "Is a directory")
        if path not in self.files:
            raise FileNotFoundError(2, "No such file or directory")
        return self.files[path]

    def glob(self, pattern: str) -> list[str]:
        return sorted(name for name in self.files if fnmatch.fnmatchcase(name, pattern))


def config(text: str | bytes, **more: str) -> Config:
    """The configuration of a file "jail.conf", beside which there may be more, x.conf for x."""
    files = {"jail.conf": text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")}
    files.update({f"{name}.conf": content.encode() for name, content in more.items()})
    return load("jail.conf", Given(files))


def export(text: str | bytes, **more: str) -> list[str]:
    """That configuration as ``jail -e '|'`` prints it."""
    from jailng.conf.config import exported

    return [exported(jail, "|") for jail in config(text, **more).jails]
