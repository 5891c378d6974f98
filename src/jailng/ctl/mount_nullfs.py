"""mount_nullfs(8): a directory once more at another place, by the host's mount(8)."""

from __future__ import annotations

from jailng.ctl import mount


def answer(argv: list[str], real: str | None) -> int:
    """Become ``real``, the host's mount. Raises JailError."""
    return mount.nullfs(argv, real)
