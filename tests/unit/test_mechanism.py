"""core/mechanism.py on cgroup2, which this machine may not have: what is written to its files, in its order."""

from __future__ import annotations

from pathlib import Path

import pytest

from jailng.core import mechanism
from jailng.core.registry import Record
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
    (tmp_path / "memory.swap.max").write_text(allowed + "\n")
    written: dict[str, bytes] = {}
    monkeypatch.setattr(mechanism, "place", lambda *_: str(tmp_path))
    monkeypatch.setattr(controller, "hierarchy", lambda _: None)
    monkeypatch.setattr(cgroup, "exists", lambda path: Path(path).exists())
    monkeypatch.setattr(cgroup, "read", lambda path: Path(path).read_bytes())
    monkeypatch.setattr(cgroup, "write", lambda path, text: written.update({Path(path).name: text}))
    amounts = {"memoryuse": 32 * MIB} | ({} if swapuse is None else {"swapuse": swapuse})
    mechanism._set_memory(Record.__new__(Record), amounts)
    assert list(written) == order
    assert written == {
        "memory.max": b"%d" % (32 * MIB),
        "memory.swap.max": b"max" if swapuse is None else b"%d" % swapuse,
    }
