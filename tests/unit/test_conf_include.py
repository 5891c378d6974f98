"""``.include`` of jail.conf(5): where files are looked for, and when it ends."""

from __future__ import annotations

import pytest

from jailng.conf import parse
from jailng.conf.config import exported, load
from jailng.errors import JailError
from tests.unit.conf_files import Given


def read(files: dict[str, str], start: str = "/etc/jail.conf") -> list[str]:
    given = Given({name: text.encode() for name, text in files.items()})
    return [exported(jail, "|") for jail in load(start, given).jails]


def wrong(files: dict[str, str], start: str = "/etc/jail.conf") -> str:
    with pytest.raises(JailError) as caught:
        read(files, start)
    return str(caught.value)


def test_relative_to_the_file_that_includes() -> None:
    files = {
        "/etc/jail.conf": 'x; .include "d/b.conf"; z;',
        "/etc/d/b.conf": ".include c.conf, /other; b { .include block; }",
        "/etc/d/c.conf": "y;",
        "/other": "c { }",
        "/etc/d/block": "persist; n { }",
    }
    assert read(files) == ["name=c|x|y|z", "name=b|x|y|z|persist", "name=b.n|x|y|z"]


def test_relative_to_the_working_directory() -> None:
    files = {
        "jail.conf": ".include b;",
        "b": "b {}",
        "-": ".include d/c; .include b;",
        "d/c": ".include b;",
        "d/b": "e {}",
    }
    assert read(files, "jail.conf") == ["name=b"]
    assert read(files, "-") == ["name=e", "name=b"]


def test_standard_input_is_no_file_that_can_be_included() -> None:
    assert read({"a": ".include -;", "-": "c { }", "./-": "b { }"}, "a") == ["name=b"]


def test_patterns() -> None:
    files = {f"/etc/d/{name}.conf": f"{name} {{ }}" for name in ("b", "a", "c")}
    assert read({"/etc/jail.conf": '.include "d/*.conf", "d/[a]*", "none/*", "jail[.]none";', **files}) == [
        "name=a", "name=b", "name=c", "name=a",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (".include none;", "/etc/none: No such file or directory"),
        (".include '';", "/etc/: Is a directory"),
        (".include 'a[';", "/etc/a[: No such file or directory"),
        (r".include 'a\\*';", r"/etc/a\*: No such file or directory"),
        (".include '/x\x01';", "/x\\x01: No such file or directory"),
        (
            "\n.include $name;",
            "/etc/jail.conf line 2: variables not permitted in '.include' filename",
        ),
        (".include broken; }", "/etc/broken line 2: }: syntax error"),
        ("} .include none;", "/etc/jail.conf line 1: }: syntax error"),
        ("a { .include closing; }", "/etc/closing line 1: }: syntax error"),
        (".include opening; }", "/etc/opening: unexpected EOF"),
        (".include jail.conf;", "maximum include depth exceeded"),
        (".include '*.conf';", "maximum include depth exceeded"),
    ],
)
def test_errors(text: str, expected: str) -> None:
    files = {"/etc/jail.conf": text, "/etc/broken": "\n}", "/etc/closing": "}", "/etc/opening": "a {"}
    assert wrong(files) == expected


def test_the_depth_is_32() -> None:
    files = {f"/etc/{n}": f".include nothing, {n + 1};" for n in range(33)} | {"/etc/nothing": ""}
    files["/etc/33"] = "a { }"
    assert read(files, "/etc/1") == ["name=a"]
    assert wrong(files, "/etc/0") == "maximum include depth exceeded"


def test_files_that_include_twice_each_are_not_read_two_to_the_32nd_times() -> None:
    files = {f"/etc/{n}": f".include {n + 1}, {n + 1};" for n in range(32)}
    files["/etc/32"] = ""
    assert wrong(files, "/etc/0") == "/etc/32: more than 10000 files"


def test_files_have_so_many_bytes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse, "_BYTES", 2 << 20)
    files = {"/etc/jail.conf": ".include a, b, a;", "/etc/a": " " * 1000000, "/etc/b": " " * 98000}
    assert wrong(files) == "/etc/a: more than 2 MB with the files before it"
