"""Rules and filters of rctl(8): what they mean, in which words they are refused, and how amounts are shown."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailng.errors import JailError
from jailng.limits import database, rule
from jailng.limits.rule import Rule, expanded, humanized, of_jail, parse
from jailng.params.limit import ACTIONS, RESOURCES, SUBJECTS, Limit

USERS = {"joe": 1001, "root": 0, "007": 7}


def number_of(kind: str, name: str) -> int | None:
    return USERS.get(name) if kind == "user" else None


def whole(text: str) -> Rule:
    made = parse(expanded(text, number_of))
    made.per = made.per or made.subject
    return made


# FreeBSD's rctl(8) and rctl.conf(5), and what people write.
@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("user:joe:vmemoryuse:deny=1g", "user:1001:vmemoryuse:deny=1073741824"),
        ("loginclass:users:vmemoryuse:deny=100M/process", "loginclass:users:vmemoryuse:deny=104857600/process"),
        ("loginclass:users:vmemoryuse:deny=100M/loginclass", "loginclass:users:vmemoryuse:deny=104857600"),
        ("jail:www:memoryuse:deny=512M", "jail:www:memoryuse:deny=536870912"),
        ("j:www:PCPU:Deny=50/jail", "jail:www:pcpu:deny=50"),
        ("Jail:Www:maxproc:sigterm=10", "jail:Www:maxproc:sigterm=10"),
        ("jail:a.b:readbps:throttle=10mb", "jail:a.b:readbps:throttle=10485760"),
        ("u:007:nthr:log=1", "user:7:nthr:log=1"),
        ("u:12:nthr:log=1", "user:12:nthr:log=1"),
        ("p:512:openfiles:deny=100", "process:512:openfiles:deny=100"),
        ("c:default:cputime:sigkill=0x10", "loginclass:default:cputime:sigkill=16"),
        ("class:x:wallclock:devctl=1", "loginclass:x:wallclock:devctl=1"),
    ],
)
def test_a_rule_has_one_form(text: str, form: str) -> None:
    made = whole(text)
    assert made.whole
    assert made.text == form
    assert whole(form).text == form


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("jail", "malformed rule 'jail': missing subject"),
        ("", "malformed rule '': missing subject"),
        ("jail:x:memoryuse:deny=1q", "malformed rule 'jail:x:memoryuse:deny=1q': invalid numeric value '1q'"),
        (":::/process", "malformed rule ':::/process': invalid numeric value 'process'"),
        ("user:nobody-here:", "malformed rule 'user:nobody-here:': unknown user 'nobody-here'"),
        ("user:1x:", "malformed rule 'user:1x:': trailing characters after numerical id"),
        ("g:staff:", "malformed rule 'g:staff:': unknown group 'staff'"),
        (
            "jail:\x1b:memoryuse:deny=\x1b",
            "malformed rule 'jail:\\x1b:memoryuse:deny=\\x1b': invalid numeric value '\\x1b'",
        ),
    ],
)
def test_what_the_command_refuses(text: str, said: str) -> None:
    with pytest.raises(JailError) as caught:
        expanded(text, number_of)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("host:x", errno.EINVAL),
        ("group:5:", errno.EINVAL),
        (":x", errno.EINVAL),
        ("jail:x:vmem", errno.EINVAL),
        ("jail:x:vmemoryuse:allow", errno.EINVAL),
        ("jail:x:vmemoryuse:deny/jail", errno.EINVAL),
        ("jail:x:vmemoryuse:deny=1/host", errno.EINVAL),
        ("user:joe:", errno.EINVAL),
        ("process:one:", errno.EINVAL),
        (f"jail:{'x' * 256}:", errno.ENAMETOOLONG),
        (f"loginclass:{'x' * 256}:", errno.ENAMETOOLONG),
        (f"jail:{'é' * 128}:", errno.ENAMETOOLONG),
        ("user:\u0661:", errno.EINVAL),
        ("jail:x:maxproc:deny=\u0661", errno.EINVAL),
        ("jail:x:maxproc:deny=1_0", errno.EINVAL),
        ("jail:x\x7f:", errno.EINVAL),
        ("jail:x\ny:maxproc:deny=1", errno.EINVAL),
        (f"jail:x:memoryuse:deny={2**63}", errno.ERANGE),
        (f"jail:x:pcpu:deny={2**63 // 10**6 + 1}", errno.ERANGE),
    ],
)
def test_what_the_kernel_refuses(text: str, number: int) -> None:
    with pytest.raises(OSError) as caught:
        parse(text)
    assert caught.value.errno == number


@pytest.mark.parametrize("text", [f"jail:{'é' * 127}x:", "jail:\udcff y:", f"jail:x:memoryuse:deny={2**63 - 1}"])
def test_what_the_kernel_takes(text: str) -> None:
    assert parse(text).id == text.split(":")[1]


@pytest.mark.parametrize(
    "text",
    [
        ":", "jail:", "jail::maxproc:deny=1/jail", "jail:x::deny=1/jail", "jail:x:maxproc:=1/jail",
        "jail:x:maxproc:deny=/jail", "jail:x:maxproc:deny=1",
    ],
)  # fmt: skip
def test_a_rule_with_a_gap_is_no_rule(text: str) -> None:
    assert not parse(text).whole
    assert parse("jail:x:maxproc:deny=0/jail").whole


RULES = [
    "jail:www:memoryuse:deny=1",
    "jail:www:maxproc:deny=2",
    "jail:www:maxproc:log=2",
    "jail:db:maxproc:deny=2",
    "jail:db:openfiles:deny=3/process",
]


@pytest.mark.parametrize(
    ("filtered", "found"),
    [
        (":", [0, 1, 2, 3, 4]),
        ("::", [0, 1, 2, 3, 4]),
        (":::", [0, 1, 2, 3, 4]),
        (":::=/", [0, 1, 2, 3, 4]),
        ("jail:", [0, 1, 2, 3, 4]),
        ("loginclass:", []),
        ("user:joe", []),
        ("jail:www", [0, 1, 2]),
        ("j:www:", [0, 1, 2]),
        ("jail:ww", []),
        ("::maxproc", [1, 2, 3]),
        ("jail:www:maxproc", [1, 2]),
        ("jail:www:maxproc:log", [2]),
        (":::deny", [0, 1, 3, 4]),
        (":::=2", [1, 2, 3]),
        (":::=/process", [4]),
        (":::=3/process", [4]),
        (":::=3/jail", []),
        (":::=2/jail", [1, 2, 3]),
    ],
)
def test_a_filter_is_a_rule_with_gaps(filtered: str, found: list[int]) -> None:
    made = parse(expanded(filtered, number_of))
    assert [RULES[at] for at in found] == [text for text in RULES if made.matches(whole(text))]


def test_of_deny_there_is_one_amount() -> None:
    rules: list[Rule] = []
    for text in ("maxproc:deny=1", "maxproc:log=1", "maxproc:log=2", "maxproc:deny=3", "maxproc:log=1"):
        rules = database.with_rule(rules, whole(f"jail:a:{text}"))
    rules = database.with_rule(rules, whole("jail:b:maxproc:deny=9"))
    texts = [one.text for one in rules]
    expected = ["jail:a:maxproc:log=2", "jail:a:maxproc:deny=3", "jail:a:maxproc:log=1", "jail:b:maxproc:deny=9"]
    assert texts == expected
    assert [one.text for one in database.in_order(rules)] == ["jail:b:maxproc:deny=9", *expected[2::-1]]


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0"),
        (1000, "1000"),
        (9999, "9999"),
        (10000, "9.8K"),
        (10137, "9.9K"),
        (10188, "9.9K"),
        (10189, "10K"),
        (10239, "10K"),
        (536870912, "512M"),
        (1 << 30, "1024M"),
        (10 << 30, "10G"),
        (9999 << 10, "9999K"),
        ((9999 << 10) + 511, "9999K"),
        ((9999 << 10) + 512, "9.8M"),
        (2**63 - 1, "8192P"),
    ],
)
def test_units(number: int, shown: str) -> None:
    assert humanized(number) == shown


@given(st.integers(0, 2**63 - 1))
def test_a_shown_amount_is_short_and_near(number: int) -> None:
    shown = humanized(number)
    assert len(shown) <= 5
    times = 1024 ** ("KMGTPE".find(shown[-1]) + 1)
    about = float(shown.rstrip("KMGTPE")) * times
    assert abs(about - number) <= (0.051 if "." in shown else 0.501) * times if times > 1 else about == number


_LIMITS = st.builds(
    Limit,
    st.sampled_from(sorted(RESOURCES)),
    st.sampled_from(ACTIONS),
    st.integers(0, 2**63 // 10**6 - 1),
    st.sampled_from(SUBJECTS),
)
_NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters=":/,"), min_size=1, max_size=20
)


@given(_NAMES, _LIMITS)
def test_whatever_is_printed_is_read_again(name: str, limit: Limit) -> None:
    made = of_jail(name, limit)
    again = whole(made.text)
    assert (again.text, again.limit) == (made.text, made.limit)
    assert parse(made.text).matches(made)
    assert humanized(limit.amount) in made.shown(human=True)


_WORDS = st.sampled_from([*RESOURCES, *ACTIONS, *SUBJECTS, *"::::=/", "u", "j", "1", "512M", "joe", "\x9b", " "])


@given(st.lists(_WORDS | st.text(max_size=3), max_size=9).map("".join))
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    try:
        made = parse(expanded(text, number_of))
    except JailError as error:
        assert str(error).isprintable()
        assert str(error).startswith("malformed rule '")
        return
    except OSError as error:
        assert error.errno in (errno.EINVAL, errno.ERANGE, errno.ENAMETOOLONG)
        return
    if made.whole:
        assert whole(made.text).text == made.text
    assert rule.Rule().matches(made)
