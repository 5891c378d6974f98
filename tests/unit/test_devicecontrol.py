"""The program that judges devices."""

from __future__ import annotations

from jailng.core import devfs, devicecontrol, deviceprogram


def test_the_usual_program_is_that_of_the_usual_devices() -> None:
    made = deviceprogram.judge([(mode & 0o170000, major, minor) for _, mode, major, minor, *_ in devfs.DEVICES])
    assert made == devicecontrol.USUAL, made.hex()


def test_which_cgroup_has_the_program() -> None:
    usual = list(devfs.DEVICES)
    kvm = [*usual, ("kvm", 0o020660, 10, 232, 0, 0)]
    for nodes, nested, place in (
        (usual, False, "jailng"),
        (usual[::-1], False, "jailng"),
        (usual, True, "jailng/7"),
        (kvm, False, "jailng/7"),
        (usual[:-1], False, "jailng/7"),
    ):
        assert devicecontrol.JudgeDevices("jailng/7", nodes, nested, False).cgroup == place
