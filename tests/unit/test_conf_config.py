"""What a configuration makes of each jail: wildcards, merging, variables, names."""

from __future__ import annotations

import pytest

from jailng.conf import merge
from jailng.conf.config import exported, is_pattern, matches, parameters
from jailng.errors import JailError, Mistakes
from tests.unit.conf_files import config, export


def errors(text: str) -> list[str]:
    (jail,) = config(text).jails
    found = jail.errors()
    for _ in range(2):  # remembered
        with pytest.raises(Mistakes) as caught:
            jail.settings()
        assert caught.value.messages == found
    return found


def test_strings_that_variables_make() -> None:
    text = """
        $root = "/srv";
        $empty = "";
        a {
            path = "$root/${name}";
            host.hostname = "pre${empty}post";
            exec.start = "${empty}";
        }
        a.child { path = "$root/$name"; host.hostname = "${empty}child${empty}"; }
    """
    assert export(text) == [
        'name=a|path=/srv/a|host.hostname=prepost|exec.start=""',
        "name=a.child|path=/srv/a.child|host.hostname=child",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a { }", "name=a"),
        ("71 { }", "name=71"),
        ("71 { persist; }", "persist|name=71"),
        ("71 { name = b; persist; }", "name=b|persist"),
        ("0 { persist; }", "name=0|persist"),
        ("b { jid = 71; persist; }", "name=b|persist"),
        ("a { persist; nopersist; path = /; }", "name=a|nopersist|path=/"),
        ("a { allow.nomount; path = /; allow.mount = 1; }", "name=a|allow.mount=1|path=/"),
        ("a { x = 1; y; x += 2, 3; }", "name=a|x=1,2,3|y"),
        ("a { x = 1; y; x += 2; x = 3; }", "name=a|x=3|y"),
        ("a { x = 1; x; }", "name=a|x"),
        ("a { x += 1; }", "name=a|x=1"),
        ("a { x = 1; nox += 2; }", "name=a|nox=1,2"),
        ("x = 1; a { x = 2; }", "name=a|x=2"),
        ("a { x = 2; } x = 1;", "name=a|x=1"),
        ("y; a { x = 2; } x = 1;", "name=a|y|x=2"),
        ("a { x += 2; } x += 1;", "name=a|x=2,1"),
        ("x = 1; a { x += 2; } * { x += 3; }", "name=a|x=1,2,3"),
        ("a { x = '$name'; y = \"$name\"; }", "name=a|x=$name|y=a"),
        ("a { x = 'it'; y = 'a b'; z = \"it's\"; }", 'name=a|x=it|y="a b"|z="it\'s"'),
        # What refers to others comes after them.
        ("a { x = $y; y = $z; z = 1; }", "name=a|y=1|x=1|z=1"),
        ("a { x = $y; q; y = b$z; $z = $w; $w = c; }", "name=a|y=bc|x=bc|q"),
        ("a { $l = 1, 2; x = $l, 3; }", "name=a|x=1,2,3"),
        ("a { $l = 1, 2; $e = ''; x = $e$l; }", "name=a|x=1,2"),
        ("a { $l = 1, 2; x = \"$l\"''; }", "name=a|x=1,2"),
        ("a { x = ${y.z}; y.z = 1; }", "name=a|y.z=1|x=1".replace("y.z=1|x=1", "x=1|y.z=1")),
        ("a { $v = 1; $v += 2; x = $v; }", "name=a|x=1,2"),
        ("$ip = 7; a { ip4.addr = 10.0.0.$ip; }", "name=a|ip4.addr=10.0.0.7"),
        ("path = /j/$name; 'a b' { }", 'name="a b"|path="/j/a b"'),
    ],
)
def test_merging(text: str, expected: str) -> None:
    assert export(text) == [expected]


def test_wildcards_in_the_order_of_the_file() -> None:
    text = """
        p { x = 1; c { x = 2; d { } } }
        "p.*" { x += 3; }
        "*.c" { x += 4; }
        "*" { x += 5; }
        "p.*.d" { x += 6; }
        * { c { x += 7; } }
    """
    assert export(text) == ["name=p|x=1,5", "name=p.c|x=2,3,4,5,7", "name=p.c.d|x=3,5,6"]


@pytest.mark.parametrize(
    ("name", "pattern", "expected"),
    [
        ("a", "*", True),
        ("a.b", "*", True),
        ("a", "a.*", False),
        ("a.b", "a.*", True),
        ("a.b.c", "a.*", True),
        ("b.a", "a.*", False),
        ("a.b", "*.b", True),
        ("a.c.b", "*.b", False),
        ("a.b", "*.*", True),
        ("a", "*.*", False),
        ("a.x.c", "a.*.c", True),
        ("a.x.y.c", "a.*.c", False),
        ("ab", "a*", False),
        ("a*", "a*", True),
        ("a", "a", True),
    ],
)
def test_patterns(name: str, pattern: str, expected: bool) -> None:
    assert matches(name, pattern) is expected


def test_what_is_a_pattern() -> None:
    assert [name for name in ("*", "*.a", "a.*", "a.*.b", "a*", "*a", "a.b*", "") if is_pattern(name)] == [
        "*", "*.a", "a.*", "a.*.b",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a { name = b; }", ['cannot redefine parameter "name".']),
        ("name = b; a { }", ['cannot redefine parameter "name".']),
        ("71 { jid = 72; }", ['cannot redefine parameter "jid".']),
        ("71 { name = b; name = c; }", ['cannot redefine parameter "name".']),
        ("a { jid = 1; jid = 1; }", ['cannot redefine parameter "jid".']),
        ("a { $path = /; }", ['variable "$path" cannot have the same name as a parameter.']),
        ("a { $nopersist = 1; }", ['variable "$nopersist" cannot have the same name as a parameter.']),
        ("a { ${allow.nomount} = 1; }", ['variable "$allow.nomount" cannot have the same name as a parameter.']),
        ("a { x; $x = 1; }", ['variable "$x" cannot have the same name as a parameter.']),
        ("a { $x = 1; nox; }", ['variable "$nox" cannot have the same name as a parameter.']),
        ("a { x = $y; }", ['x: variable "y" not found']),
        ("a { x = $y; y; }", ['x: variable "y" not found']),
        ("a { x = $y; noy = 1; }", ['x: variable "y" not found']),
        ("a { x = $y$z; w = $q; }", [f'{v}: variable "{w}" not found' for v, w in ("xy", "xz", "wq")]),
        ("a { x = $x; }", ["x: variable loop"]),
        ("a { $x = $y; $y = $z; $z = $x; }", ["x: variable loop"]),
        ("a { z = $l!; $l = 1, 2; }", ["z: array cannot be substituted inline"]),
        ("a { z = $l$m; $l = 1, 2; $m = ''; }", ["z: array cannot be substituted inline"]),
        ("a { z = $m$l; $l = 1, 2; $m = x; }", ["z: array cannot be substituted inline"]),
        # What is wrong once is told once.
        ("a { $x = $none; y = $x; z = $y; }", ['x: variable "none" not found']),
    ],
)
def test_errors_of_one_jail(text: str, expected: list[str]) -> None:
    assert errors(text) == expected


def test_a_jail_that_is_wrong_leaves_the_others_alone() -> None:
    one, other = config("path = /$v; a { } b { $v = 1; }").jails
    with pytest.raises(JailError, match=r'^path: variable "v" not found$'):
        exported(one, "|")
    assert exported(other, "|") == "name=b|path=/1"
    assert one.errors() == ['path: variable "v" not found']
    assert [(setting.name, setting.values) for setting in other.settings()] == [("name", ("b",)), ("path", ("/1",))]


def test_what_variables_make_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "_LARGEST", 1 << 20)
    doubling = "".join([f"$v{n + 1} = $v{n}$v{n};" for n in range(40)])
    (found,) = errors(f"a {{ $v0 = xx; {doubling} path = $v40; }}")
    assert found.endswith("variables make more than 1048576 characters of this jail")
    lists = "".join([f"$v{n + 1} = $v{n}, $v{n};" for n in range(40)])
    assert errors(f"a {{ $v0 = x; {lists} path = $v40; }}")[0].endswith("characters of this jail")


def test_a_long_chain_of_variables() -> None:
    chain = "".join([f"$v{n} = $v{n + 1};" for n in range(20000)])
    assert export(f"a {{ {chain} $v20000 = x; path = $v0; }}") == ["name=a|path=x"]


def test_find_and_match() -> None:
    found = config("a { b { } } 71 { name = c; } d { jid = 72; } a { } * { }")
    assert [jail.key for jail in found.jails] == ["a", "a.b", "71", "d", "a"]
    for name, key in {"a": "a", "a.b": "a.b", "71": "71", "c": "71", "72": "d", "d": "d"}.items():
        jail = found.find(name)
        assert jail is not None and jail.key == key
    assert found.find("a") is found.jails[0]
    assert found.find("b") is found.find("*") is None
    assert [jail.key for jail in found.match("a.*")] == ["a.b"]
    assert [jail.key for jail in found.match("*")] == ["a", "a.b", "71", "d", "a"]


def test_one_setting() -> None:
    (jail,) = config("$v = 1; a { depend = b, c; nopersist; host.hostname = h; }").jails
    depend, persist = jail.named("depend"), jail.named("persist")
    assert depend is not None and (depend.name, depend.values, depend.bare) == ("depend", ("b", "c"), False)
    assert persist is not None and (persist.name, persist.values, persist.bare) == ("nopersist", (), True)
    assert jail.named("path") is jail.named("v") is None


def test_settings_as_parameters() -> None:
    text = """
        a { ip4.addr = 10.0.0.2, 10.0.0.1; exec.start = x, "y z"; allow.nochflags; persist; host.hostname = a, b;
            path = /; mount = ""; exec.stop; }
    """
    made = parameters(config(text).jails[0].settings())
    assert [address.text for address in made.addresses("ip4.addr")] == ["10.0.0.2", "10.0.0.1"]
    assert made.strings("exec.start") == ("x", "y z")
    assert made.strings("mount") == ("",) and made.strings("exec.stop") == ()
    assert made.text("host.hostname") == "b"  # jail(8) keeps the last
    assert made.flag("persist") and not made.flag("allow.chflags") and made.given("allow.chflags")
    assert list(made)[:2] == ["name", "ip4.addr"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a { nosuch = 1; }", "unknown parameter: nosuch"),
        ("a { persist = maybe; }", 'persist: unknown boolean value "maybe"'),
        (".include = x; a { }", "unknown parameter: .include"),
        ("a { securelevel = high; }", 'securelevel: non-integer value "high"'),
    ],
)
def test_settings_that_are_no_parameters(text: str, expected: str) -> None:
    with pytest.raises(JailError) as caught:
        parameters(config(text).jails[0].settings())
    assert str(caught.value) == expected


def test_many_jails() -> None:
    text = "path = /j/$name; " + "".join([f"j{n} {{ jid = {n + 1}; }}\n" for n in range(20000)])
    found = config(text)
    assert len(found.jails) == 20000
    last = found.find("j19999")
    assert last is not None
    assert [(setting.name, *setting.values) for setting in last.settings()] == [
        ("name", "j19999"), ("path", "/j/j19999"), ("jid", "20000"),
    ]  # fmt: skip
