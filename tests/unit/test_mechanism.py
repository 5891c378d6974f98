"""core/mechanism.py on cgroup2, which this machine may not have: what is written to its files, in its order."""

from __future__ import annotations

from pathlib import Path

import pytest

from jailng.core import mechanism
from jailng.core.registry import Record
from jailng.errors import JailError
from jailng.linux import cgroup, controller

MIB = 1 << 20


@pytest.mark.parametrize(
    ("allowed", "swapuse", "order"),
    [
        ("0", 64 * MIB, ["memory.swap.max", "memory.max"]),
        ("0", None, ["memory.swap.max", "memory.max"]),
        (str(128 * MIB), 64 * MIB, ["memory.max", "memory.swap.max"]),
        ("max", 64 * MIB, ["memory.max", "memory.swap.max"]),
    ],
)
def test_who_may_be_swapped_is_not_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, allowed: str, swapuse: int | None, order: list[str]
) -> None:
    """A jail that is given less memory and more swap: what no longer fits is for the swap."""
    written = _unified(monkeypatch, tmp_path, allowed, used=0)
    amounts = {"memoryuse": 32 * MIB} | ({} if swapuse is None else {"swapuse": swapuse})
    mechanism._set_memory(Record.__new__(Record), amounts)
    assert written.pop("memory.high") == b"max"
    assert list(written) == order
    assert written == {
        "memory.max": b"%d" % (32 * MIB),
        "memory.swap.max": b"max" if swapuse is None else b"%d" % swapuse,
    }


def test_what_is_in_use_is_no_reason_to_kill(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the kernel cannot take back, here nothing, does not fit: refused, with the jail as it was."""
    written = _unified(monkeypatch, tmp_path, "max", used=64 * MIB)
    with pytest.raises(JailError, match=r"^memoryuse: more is in use$"):
        mechanism._set_memory(Record.__new__(Record), {"memoryuse": 32 * MIB})
    assert written == {"memory.high": b"max"}


def _unified(patch: pytest.MonkeyPatch, place: Path, allowed: str, used: int) -> dict[str, bytes]:
    """A jail's cgroup with that much memory in use, and the last that is written to each file of it."""
    (place / "memory.swap.max").write_text(allowed + "\n")
    (place / "memory.current").write_text(f"{used}\n")
    written: dict[str, bytes] = {}
    patch.setattr(mechanism, "place", lambda *_: str(place))
    patch.setattr(controller, "hierarchy", lambda _: None)
    patch.setattr(cgroup, "exists", lambda path: Path(path).exists())
    patch.setattr(cgroup, "read", lambda path: Path(path).read_bytes())
    patch.setattr(cgroup, "write", lambda path, text: written.update({Path(path).name: text}))
    return written
