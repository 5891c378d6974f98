"""nf_tables through libnftables(3), in process: text goes in, JSON comes out. For whoever has 20 ms to load it."""

from __future__ import annotations

import errno
import json
import os
from typing import Any

from jailng.errors import JailError


class Library:
    """A context of the library. Raises JailError where Debian's python3-nftables is not there."""

    def __init__(self) -> None:
        try:
            import nftables
        except ImportError:
            raise JailError("nftables: no module of that name (package python3-nftables)") from None
        self._library = nftables.Nftables()

    def run(self, text: str) -> None:
        """Carry out commands of nft(8), all or none. Raises JailError with what is wrong, in a line."""
        self._library.set_json_output(False)
        self._run(text)

    def ask(self, text: str, elements: bool = False) -> list[dict[str, Any]]:
        """The objects that a ``list`` command shows, and what is in sets if asked: libnftables-json(5).

        Raises JailError, of errno ENOENT where there is no such object.
        """
        self._library.set_json_output(True)
        self._library.set_terse_output(not elements)
        answer: list[dict[str, Any]] = json.loads(self._run(text))["nftables"]
        return answer

    def _run(self, text: str) -> str:
        status, output, error = self._library.cmd(text)
        if status:
            lines = [line for line in str(error).splitlines() if "Error: " in line]
            said = lines[0].partition("Error: ")[2] if lines else str(error).strip() or "failed"
            # The library has no other word for it.
            raise JailError(said, errno=errno.ENOENT if said.startswith(os.strerror(errno.ENOENT)) else 0)
        return str(output)
