"""linux/cpuset.py: which processors there are."""

from __future__ import annotations

import pytest

from jailng.linux import content, cpuset

STAT = """cpu  761541 243552 360596 199500 4023 0 3519 1395 0 0
cpu0 394804 111852 171861 105893 1314 0 495 684 0 0
cpu3 366737 131699 188734 93606 2708 0 3023 710 0 0
intr 1 2 3
"""


@pytest.mark.parametrize(("online", "found"), [("0-2,7\n", [0, 1, 2, 7]), ("", [0, 3])])
def test_a_bare_chroot_has_no_sys(monkeypatch: pytest.MonkeyPatch, online: str, found: list[int]) -> None:
    def text(path: str) -> str:
        if path == "/proc/stat":
            return STAT
        if not online:
            raise FileNotFoundError(path)
        return online

    monkeypatch.setattr(content, "text", text)
    assert cpuset.online() == found
