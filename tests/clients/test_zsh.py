"""zsh's own completion of jexec, jls and jail, as Debian ships it: what stands on the line after a TAB."""

from __future__ import annotations

import os
import re
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import Cell

_MARK = "<ready>"
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|[\r\x07]")
# A key that completes, and tells what zsh has on the line then.
_RC = f"""
PS1='{_MARK}'
unsetopt prompt_sp prompt_cr
autoload -Uz compinit
compinit -D -u
tell() {{ zle expand-or-complete; print -r "[$BUFFER]"; BUFFER=; }}
zle -N tell
bindkey '^T' tell
"""


class Zsh:
    """An interactive zsh on a terminal."""

    def __init__(self, home: Path, path: str) -> None:
        (home / ".zshrc").write_text(_RC)
        environment = {"HOME": str(home), "TERM": "dumb", "PATH": path, "LC_ALL": "C.UTF-8"}
        self.pid, self.terminal = os.forkpty()
        if self.pid == 0:
            os.execve("/usr/bin/zsh", ["zsh", "-i"], environment)
        self._until(_MARK)

    def complete(self, typed: str) -> str:
        """What stands on the line after a TAB at the end of it."""
        os.write(self.terminal, typed.encode() + b"\x14")
        seen = self._until("]")
        return seen[seen.rindex("[") + 1 : seen.rindex("]")]

    def _until(self, wanted: str, seconds: float = 60) -> str:
        seen, end = "", time.monotonic() + seconds
        while wanted not in seen:
            if not select.select([self.terminal], [], [], max(0, end - time.monotonic()))[0]:
                raise AssertionError(f"no {wanted!r} in {seen!r}")
            seen += _ESCAPE.sub("", os.read(self.terminal, 65536).decode(errors="replace"))
        return seen

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)


@pytest.fixture
def zsh(tmp_path: Path) -> Iterator[Zsh]:
    """With FreeBSD's spellings (sysctl) before the host's, as jailng(7) recommends it."""
    made = Zsh(tmp_path, "/usr/lib/jailng/shims:/usr/sbin:/usr/bin:/sbin:/bin")
    yield made
    made.close()


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("jexec c", "jexec cell "),  # _jails: jls name name
        ("jexec -U alice ce", "jexec -U alice cell "),
        ("jexec cell only-in-c", "jexec cell only-in-cell "),  # jls -j cell path
        ("jls -j c", "jls -j cell "),
        ("jls children.m", "jls children.max "),  # sysctl -N security.jail.param
        ("jls host.hostn", "jls host.hostname "),
        ("jail -r ce", "jail -r cell "),
        ("jail -m name=c", "jail -m name=cell "),
        ("jail -c depend=c", "jail -c depend=cell "),
    ],
)
def test_completion(zsh: Zsh, cell: Cell, typed: str, line: str) -> None:
    command = cell.root / "usr/bin/only-in-cell"
    command.touch(mode=0o755)
    assert zsh.complete(typed) == line
    command.unlink()
