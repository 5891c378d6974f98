"""Escape sequences: what is taken out of text, and what of a hostile recording gets through to an operator."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailng.observe import escapes
from jailng.observe.escapes import Filter

# What makes a terminal answer, or do something else than draw.
DANGEROUS = {
    "answerback": "\x05",
    "DA": "\x1b[c",
    "secondary DA": "\x1b[>c",
    "tertiary DA": "\x1b[=0c",
    "DECID": "\x1bZ",
    "DSR": "\x1b[6n",
    "DECDSR": "\x1b[?6n",
    "DECREQTPARM": "\x1b[x",
    "title report": "\x1b[21t",
    "window operations": "\x1b[8;5;5t",
    "DECRQSS": '\x1bP$q"p\x1b\\',
    "XTGETTCAP": "\x1bP+q544e\x1b\\",
    "DECUDK": "\x1bP1;1|17/726d\x1b\\",
    "sixel": "\x1bPq#0;2;0;0;0\x1b\\",
    "clipboard": "\x1b]52;c;cm0gLXJm\x07",
    "clipboard, C1": "\x9d52;c;cm0gLXJm\x9c",
    "colour query": "\x1b]11;?\x1b\\",
    "font": "\x1b]50;#\x07",
    "iTerm2": "\x1b]1337;RequestUpload=format=tgz\x07",
    "notification": "\x1b]777;notify;a;b\x07",
    "hyperlink": "\x1b]8;;file:///etc/passwd\x07",
    "APC": "\x1b_Gi=1,a=q;AAAA\x1b\\",
    "PM": "\x1b^x\x1b\\",
    "SOS": "\x1bXx\x1b\\",
    "DECRQM": "\x1b[?2004$p",
    "XTVERSION": "\x1b[>q",
    "kitty keyboard": "\x1b[>1u",
    "kitty keyboard, set": "\x1b[=1u",
    "kitty keyboard, taken back": "\x1b[<u",
    "kitty query": "\x1b[?u",
    "modifyOtherKeys": "\x1b[>4;2m",
    "key modifiers asked for": "\x1b[?4m",
    "erasing that is none": "\x1b[>J",
    "a mode of another kind": "\x1b[>;25h",
    "a cursor of another kind": "\x1b[?1 q",
    "checksum": "\x1b[1;1;1;1;5;5*y",
    "printing": "\x1b[5i",
    "printing, private": "\x1b[?5i",
    "mouse": "\x1b[?1003h",
    "focus": "\x1b[?1004h",
    "paste": "\x1b[?2004h",
    "132 columns": "\x1b[?3h",
    "keyboard lock": "\x1b[2h",
    "UTF-8 off": "\x1b%@",
    "DECRQUPSS": "\x1b[&u",
    "XTSMGRAPHICS": "\x1b[?1;1;0S",
    "answers in C1": "\x1b G",
    "hard copy": "\x1b#7",
    "a character set of G2": "\x1b*8",
    "no reset": "\x1b c",
    "keypad": "\x1b=",
    "CSI of C1": "\x9b6n",
    "single C1": "\x9a",
    "a number that overflows": "\x1b[2147483648b",
    "what has scrolled away": "\x1b[3J",
    "what has scrolled away, too": "\x1b[2;03J",
    "what has scrolled away, selectively": "\x1b[?3J",
}
HARMLESS = [
    "plain\r\n\ttext \a\b é€😀",
    "\x1b[1;31mred\x1b[0m\x1b[38;2;1;2;3m\x1b[4:3m",
    "\x1b[2J\x1b[H\x1b[10;20H\x1b[K\x1b[3A\x1b[2;20r\x1b[L\x1b[P\x1b[@",
    "\x1b[?1049h\x1b[?25l\x1b[?7h\x1b[?2026h",
    "\x1b7\x1b8\x1bM\x1bD\x1b(0lqk\x1b(B\x0e\x0f\x1b#8",
    "\x1b[2 q\x1b[!p",
    "\x1b[?J\x1b[?1K",
]


@pytest.mark.parametrize("sequence", DANGEROUS.values(), ids=DANGEROUS)
def test_what_is_dangerous_does_not_get_through(sequence: str) -> None:
    assert Filter().add(f"a{sequence}b") == "ab"
    divided = Filter()
    assert "".join([divided.add(char) for char in f"a{sequence}b"]) == "ab"


@pytest.mark.parametrize("text", HARMLESS)
def test_what_draws_does(text: str) -> None:
    assert Filter().add(text) == text
    divided = Filter()
    assert "".join([divided.add(char) for char in text]) == text


def test_modes_together_and_titles() -> None:
    assert Filter().add("\x1b[?1049;1000;25h") == "\x1b[?1049;25h"
    assert Filter().add("\x1b]2;a\x1b]52;c;x\x07b\x07") == "2;ab\a"
    assert Filter().add("\x1b]2;a\nb\x9c") == "\x1b[22;0t\x1b]2;ab\x07"


def test_the_title_is_given_back() -> None:
    shown = Filter()
    assert shown.add("\x1b]0;root@cell: ~\x07") == "\x1b[22;0t\x1b]0;root@cell: ~\x07"
    assert shown.add("\x1b]0;a\x07") == "\x1b]0;a\x07"
    assert shown.end().endswith("\x1b[23;0t")
    assert "t" not in Filter().end()


def test_a_reset_leaves_what_has_scrolled_away() -> None:
    shown = Filter().add("a\x1bcb")
    assert shown.startswith("a\x1b[") and shown.endswith("\x1b[H\x1b[2Jb") and "\x1bc" not in shown


def test_a_reset_shows_the_first_screen_as_of_a_terminal() -> None:
    shown = Filter()
    assert shown.add("\x1b[?1049h\x1bc").startswith("\x1b[?1049h\x1b[?1049l")
    assert "1049" not in shown.end()


@pytest.mark.parametrize(
    ("changed", "back"),
    [
        ("\x1b[3g", "\x1b[3g\x1b[8C\x1bH"),
        ("\x1bH", "\x1b[3g\x1b[8C\x1bH"),
        ("\x1b[6 q", "\x1b[0 q"),
        ("\x1b[?5;6h", "\x1b[?6l"),
        ("\x1b[2;4r", "\x1b7\x1b[r\x1b8"),
        ("\x1b[4h", "\x1b[4l"),
    ],
)
def test_what_is_changed_is_put_back(changed: str, back: str) -> None:
    """Also on terminals that do not know DECSTR, as tmux's."""
    shown = Filter()
    assert shown.add(f"{changed}a\x1b[He") == f"{changed}a\x1b[He"
    assert back in shown.end()


def test_the_screen_is_restored() -> None:
    shown = Filter()
    shown.add("\x1b[?25;7h")
    assert shown.end() == Filter().end()
    assert "1049" not in shown.end()
    shown.add("\x1b[?1049h")
    assert shown.end().startswith("\x1b[?1049l")
    shown.add("\x1b[?1049l")
    assert "1049" not in shown.end()


ALPHABET = st.sampled_from([*"\x1b\x9b\x9d\x07?;52$ ", "\x1b[", "\x1b]", "\x1bP", "\x1b\\"])
TEXT = st.lists(ALPHABET | st.characters(max_codepoint=0x2FF)).map("".join)
ALLOWED = re.compile(
    r"(?:\x1b\[22;0t)?\x1b\][012];[^\x00-\x1f\x7f-\x9f]*\x07|\x1b\[[0-9:;]*[@-HJ-MPSTXZ`abdefgmrsu]|\x1b\[\?[0-9;]*[hlJK]"
    r"|\x1b\[[4;]*[hl]|\x1b\[[0-9;:]* q|\x1b\[[0-9;:]*!p|\x1b[78DEHMc]|\x1b[()][0-Z\\-~]|\x1b#[34568]"
    r"|[^\x00-\x1f\x7f-\x9f]|[\a-\x0f]"
)


@given(TEXT)
def test_nothing_else_gets_through(text: str) -> None:
    shown = Filter()
    assert re.fullmatch(f"(?:{ALLOWED.pattern})*", shown.add(text))


@given(st.lists(TEXT))
def test_divided_or_not(texts: list[str]) -> None:
    divided = Filter()
    assert "".join([divided.add(text) for text in texts]) == Filter().add("".join(texts))


@given(TEXT)
def test_plain_text_and_where_it_was(text: str) -> None:
    clean = escapes.plain(text)
    assert not [char for char in clean if (char < " " and char not in "\t\n") or "\x7f" <= char < "\xa0"]
    pieces = escapes.pieces(text)
    for (start, begin), end in zip(pieces, [start for start, _ in pieces[1:]] + [len(clean)], strict=True):
        assert clean[start:end] == text[begin : begin + end - start]


def test_a_string_without_an_end_is_not_held_for_ever() -> None:
    shown = Filter()
    shown.add("\x1b]52;")
    assert len("".join([shown.add("x" * 10000) for _ in range(20)])) > 100_000
    assert shown.add("\x07") == "\x07"


@pytest.mark.parametrize("unit", ["\x9d", "\x90a", "\x98\x9f", "\x1b]\x9d", "\x9b0", "\x1b[0;"])
@pytest.mark.parametrize("end", ["", "\x07", "\x1b"])
def test_a_flood_of_beginnings_takes_as_long_as_any_text(unit: str, end: str) -> None:
    """What takes the square of its length took ten minutes of this."""
    text = unit * (300_000 // len(unit)) + end
    assert not set(escapes.plain(text) + escapes.plain(text, typed=True)) & {"\x9d", "\x90", "\x98", "\x9b", "\x1b"}
    assert escapes.pieces(text)
    assert 0 <= escapes.begun(text) <= len(text)
    shown = Filter()
    assert not set(shown.add(text) + shown.add("\x07")) & {"\x9d", "\x90", "\x98", "\x9b"}
