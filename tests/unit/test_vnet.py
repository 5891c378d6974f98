"""What is remembered of a lent interface, and when a kernel is one that would load modules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailng.core import modules
from jailng.errors import JailError
from jailng.linux import lsm
from jailng.linux.interface import Device

_NAMES = st.text(st.characters(codec="ascii", exclude_characters="/ :", min_codepoint=33), min_size=1, max_size=15)
_NUMBERS = st.integers(0, 2**32 - 1)


@st.composite
def devices(draw: st.DrawFn) -> Device:
    made = Device(draw(_NAMES), draw(st.integers(1, 2**31 - 1)))
    made.kind = draw(st.sampled_from(["", "veth", "vlan"]))
    made.flags, made.mtu, made.queue, made.group = [draw(_NUMBERS) for _ in range(4)]
    made.mac = draw(st.binary(max_size=32))
    made.everybody = draw(st.binary(max_size=32))
    made.carrier, made.mode = [draw(st.integers(0, 255)) for _ in range(2)]
    made.sizes = draw(st.lists(_NUMBERS, min_size=5, max_size=5))
    made.alias = draw(st.binary(max_size=255))
    made.others = draw(st.lists(st.binary(min_size=1, max_size=127), max_size=3))
    return made


@given(devices())
def test_a_record_has_all_of_an_interface(device: Device) -> None:
    words = device.words()
    assert not any(set(word) & set(" \n") or not word for word in words)
    read = Device.of_words(" ".join(words).split(" "))
    kept = [slot for slot in Device.__slots__ if slot not in ("up", "master")]
    assert [getattr(read, slot) for slot in kept] == [getattr(device, slot) for slot in kept]
    of_an_earlier_release = Device.of_words(words[:-1])
    assert (of_an_earlier_release.mac, of_an_earlier_release.others) == (device.mac, device.others)


@pytest.mark.parametrize(
    ("loader", "disabled", "loads"),
    [
        (b"/sbin/modprobe\n", b"0\n", True),
        (b"/sbin/modprobe\n", b"", True),
        (b"/sbin/modprobe\n", b"1\n", False),
        (b"\n", b"0\n", False),  # sysctl kernel.modprobe=
        (b"", b"", False),  # a kernel without modules
    ],
)
def test_which_kernel_loads_modules(
    monkeypatch: pytest.MonkeyPatch, loader: bytes, disabled: bytes, loads: bool
) -> None:
    def refuse() -> int:
        raise OSError(2, "No such file or directory", "security module bpf")

    monkeypatch.setattr(modules, "_content", lambda path: disabled if path.endswith("disabled") else loader)
    monkeypatch.setattr(lsm, "load_refusal", refuse)
    if not loads:
        modules.check()
        assert modules.operations("jailng/7") == []
        return
    with pytest.raises(
        JailError, match=r"vnet=new: this kernel would load modules .*: security module bpf: No such file"
    ):
        modules.check()
    (operation,) = modules.operations("jailng/7")
    assert operation.describe() == "have no module loaded by what it asks"
