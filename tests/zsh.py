"""An interactive zsh, and what stands on its line after a TAB."""

from __future__ import annotations

import os
import re
import select
import signal
import time
from pathlib import Path

_MARK = "<ready>"
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|[\r\x07]")
# A key that completes, and tells what zsh has on the line then. The first line is the caller's.
_RC = f"""
%s
PS1='{_MARK}'
unsetopt prompt_sp prompt_cr
autoload -Uz compinit
compinit -D -u
tell() {{ zle expand-or-complete; print -r "[$BUFFER]"; BUFFER=; }}
zle -N tell
bindkey '^T' tell
"""


class Zsh:
    """An interactive zsh on a terminal. ``first`` is what its .zshrc begins with: what is in ``fpath``."""

    def __init__(self, home: Path, path: str, first: str) -> None:
        (home / ".zshrc").write_text(_RC % first)
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
