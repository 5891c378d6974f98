"""Keys of ``meta`` and ``env``, ``meta.x=1``, folded into these (kern_jailmeta.c). Loaded where any is given."""

from __future__ import annotations

from jailng.errors import JailError
from jailng.params.values import LIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.params.model import Parameters


def settle(params: Parameters) -> None:
    """Have ``meta`` and ``env`` be what is left of them after what was given. Raises JailError: too large."""
    for base in ("meta", "env"):
        changes = [(name, text) for name, text in params._keys.items() if name.partition(".")[0] == base]
        if not changes:
            continue
        folded = fold(params.text(base), changes)
        for name, text in [*changes, (base, folded)]:
            if len((text or "").encode("utf-8", "surrogateescape")) >= LIMITS["meta_maxbufsize"]:
                raise JailError(f"{name}: File too large")
        params._values[base] = folded
    params._keys.clear()


def fold(text: str, changes: list[tuple[str, str | None]]) -> str:
    """``meta`` or ``env`` after changes in order: ``("meta", all of it)``, ``("meta.key", value)``, None to remove it.

    A key that is new or changed goes to the front (sys/kern/kern_jailmeta.c; FreeBSD's tests assert it).
    """
    lines = text.split("\n") if text else []
    for name, value in changes:
        _, dot, key = name.partition(".")
        if not dot:
            lines = value.split("\n") if value else []
            continue
        lines = [line for line in lines if not line.startswith(f"{key}=")]
        if value is not None:
            lines.insert(0, f"{key}={value}")
    return "\n".join(lines)
