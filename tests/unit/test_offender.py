"""Which process a rule of rctl(8) names, where some end while they are looked at."""

from __future__ import annotations

import pytest

from jailng.limits import offender

_STAT = "{} (worker {}) S" + " 0" * 18 + " {} 0 5\n"
_FILES = {
    "/proc/7/stat": _STAT.format(7, 7, 100),
    "/proc/7/status": "Name:\tworker\nUid:\t501000\t501000\t501000\t501000\n",
    "/proc/7/uid_map": "         0     500000      65536\n",
    "/proc/8/stat": _STAT.format(8, 8, 200),
    "/proc/8/status": "Name:\tworker\nUid:\t500000\t500000\t500000\t500000\n",
    "/proc/8/uid_map": "         0     500000      65536\n",
}


@pytest.mark.parametrize(
    ("gone", "expected"),
    [
        ((), (8, "worker 8", 0)),
        (("/proc/8/uid_map",), (7, "worker 7", 1000)),  # it had the host's number of its user
        (("/proc/8/status", "/proc/8/uid_map"), (7, "worker 7", 1000)),
        (("/proc/8/uid_map", "/proc/7/uid_map"), (0, "", 0)),
    ],
)
def test_who_has_ended_is_not_named(
    gone: tuple[str, ...], expected: tuple[int, str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offender, "_read", lambda path: b"" if path in gone else _FILES.get(path, "").encode())
    found = offender.worst([7, 8], "maxproc")
    assert (found.pid, found.comm, found.uid) == expected
