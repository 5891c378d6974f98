"""ng.limits: what is a limit, that each has one form, and what FreeBSD or Linux refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailng.errors import JailError
from jailng.params import limit
from jailng.params.limit import ACTIONS, OF_PROCESSES, RESOURCES, SIGNALS, Limit
from jailng.params.model import Parameters


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("memoryuse:deny=512M", "memoryuse:deny=536870912"),
        ("MemoryUse:DENY=512mb/Jail", "memoryuse:deny=536870912"),
        ("maxproc:deny=100", "maxproc:deny=100"),
        ("vmemoryuse:deny=1g/process", "vmemoryuse:deny=1073741824/process"),
        ("cputime:sigterm=3600", "cputime:sigterm=3600"),
        ("wallclock:sigkill=1k", "wallclock:sigkill=1024"),
        ("pcpu:deny=50", "pcpu:deny=50"),
        ("readbps:throttle=0x10k", "readbps:throttle=16384"),
        ("openfiles:log=010", "openfiles:log=8"),
        ("disk:deny=7b", "disk:deny=7"),
        ("maxproc:deny= +5", "maxproc:deny=5"),
        ("maxproc:deny=-0", "maxproc:deny=0"),
    ],
)
def test_a_limit_has_one_form(text: str, form: str) -> None:
    made = limit.parse(text)
    assert made.text == form
    assert limit.parse(form) == made


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("memoryuse", "not RESOURCE:ACTION=AMOUNT"),
        ("memoryuse:deny", "not RESOURCE:ACTION=AMOUNT"),
        ("jail:cell:memoryuse:deny=1", 'no such resource: "jail"'),
        ("vmem:deny=1", 'no such resource: "vmem"'),
        ("memoryuse:kill=1", 'no such action: "kill"'),
        ("memoryuse:deny=1/host", 'not jail or process: "host"'),
        ("memoryuse:deny=", 'not an amount: ""'),
        ("memoryuse:deny=M", 'not an amount: "M"'),
        ("memoryuse:deny=1.5G", 'not an amount: "1.5G"'),
        ("memoryuse:deny=-1", 'not an amount: "-1"'),
        ("memoryuse:deny=+-1", 'not an amount: "+-1"'),
        ("memoryuse:deny=+", 'not an amount: "+"'),
        ("memoryuse:deny=8bb", 'not an amount: "8bb"'),
        ("memoryuse:deny=08", 'not an amount: "08"'),
        ("memoryuse:deny=8e", 'not an amount: "8e"'),
        ("pcpu:deny=10t", 'not an amount: "10t"'),
        ("cputime:deny=10", "cputime cannot be limited by deny"),
        ("wallclock:deny=10", "wallclock cannot be limited by deny"),
        ("readbps:deny=10", "readbps cannot be limited by deny, but by throttle"),
        ("memoryuse:throttle=10", "memoryuse cannot be limited by throttle, but by deny"),
        ("pcpu:throttle=10", "pcpu cannot be limited by throttle, but by deny"),
        ("memoryuse:devctl=10", "devctl: Linux has no devd(8) to tell"),
        ("memoryuse:siginfo=10", "siginfo: Linux has no such signal"),
        ("memoryuse:deny=10/user", "per user: nothing on Linux counts by user within a jail"),
        ("memoryuse:deny=10/process", "memoryuse:deny is for the whole jail: not per process"),
        ("openfiles:log=10/process", "openfiles:log is for the whole jail: not per process"),
        ("memoryuse:deny=1\x1b", 'not an amount: "1\\x1b"'),
    ],
)
def test_what_is_no_limit(text: str, why: str) -> None:
    with pytest.raises(JailError) as caught:
        limit.parse(text)
    shown = text.replace("\x1b", "\\x1b")
    assert str(caught.value) == f'ng.limits: "{shown}": {why}'


def test_commas_part_limits_and_of_deny_the_last_amount_counts() -> None:
    made = Parameters()
    made.add("ng.limits", "memoryuse:deny=1g, maxproc:deny=10 ,")
    made.add("ng.limits", "memoryuse:log=1,memoryuse:log=2,memoryuse:deny=2g,memoryuse:log=1")
    made.settle()
    assert made.strings("ng.limits")[:2] == ("memoryuse:deny=1073741824", "maxproc:deny=10")
    assert [one.text for one in limit.read(made.strings("ng.limits"))] == [
        "maxproc:deny=10",
        "memoryuse:log=2",
        "memoryuse:deny=2147483648",
        "memoryuse:log=1",
    ]
    again = Parameters.from_lines(made.to_lines(["ng.limits"]))
    assert again.strings("ng.limits") == made.strings("ng.limits")


_SUPPORTED = st.builds(
    Limit,
    st.sampled_from(sorted(RESOURCES)),
    st.sampled_from([*SIGNALS, "log", "deny", "throttle"]),
    st.integers(0, 2**63 // 10**6 - 1),
    st.sampled_from(["jail", "process"]),
).filter(lambda one: not limit.unsupported(one))


@given(_SUPPORTED)
def test_whatever_is_printed_is_read_again(made: Limit) -> None:
    assert limit.parse(made.text) == made
    assert limit.parse(made.text.upper()) == made


@given(st.integers(0, 2**64 - 1), st.sampled_from([*"bkmgtpe", "kb", "MB", "Gb", "tB", ""]))
def test_a_unit_is_a_power_of_1024(number: int, unit: str) -> None:
    times = 1024 ** "bkmgtpe".index(unit[:1].lower() or "b")
    expected = number * times if number * times < 2**64 else None
    assert limit.expand(f"{number}{unit}") == expected
    if unit[:1].lower() not in ("b", "e", ""):
        assert limit.expand(f"{number:#x}{unit}") == expected


_NONE = ["", "k", "-1", "1kk", "1kx", "1bb", "1 k", "08", "0x", "1_0", "\u0661", "9" * 5000, "0x" + "f" * 5000]


@pytest.mark.parametrize("text", _NONE, ids=range(len(_NONE)))
def test_what_is_no_number(text: str) -> None:
    assert limit.expand(text) is None


_WORDS = st.sampled_from([*RESOURCES, *ACTIONS, *":=/,", "1", "512M", "jail", "process", "user", "\x9b", " "])


@given(st.lists(_WORDS | st.text(max_size=3), max_size=9).map("".join))
def test_any_text_is_a_list_of_limits_or_refused(text: str) -> None:
    made = Parameters()
    try:
        made.add("ng.limits", text)
    except JailError as error:
        assert str(error).isprintable()
        return
    assert Parameters.from_lines(made.to_lines(["ng.limits"])).strings("ng.limits") == made.strings("ng.limits")


def test_what_is_limited_by_process_can_be_denied() -> None:
    assert all(RESOURCES[name][1] == "deny" for name in OF_PROCESSES)
