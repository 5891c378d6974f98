"""What can be seen in a command string of the host's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailng.engine import hookfiles, hookwords
from jailng.engine.command import split
from jailng.engine.hooktables import AT, INTO, THROUGH


def seen(text: str, hits: bool = True, **known: str) -> list[tuple[int, str, str]]:
    """All that is told of; each is said to be there, or not."""
    told = []
    found = hookwords.executed(split(text)[0], {"PATH": "/bin", **known}, "/cwd")
    try:
        item = next(found)
        while True:
            told.append(item[:3])
            item = found.send(hits)
    except StopIteration:
        return told


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a b c", ["a"]),
        ("a 'b'; c", ["/bin/sh", "a", "c"]),
        ("a > b 2>&1 | c", ["/bin/sh", "a", "c"]),
        ("X=1 Y='2 3' a", ["/bin/sh", "a"]),
        ("X=/x; $X/a; ${X}/b; $Z/c", ["/bin/sh", "/x/a", "/x/b"]),
        ('a "b $(c d)" `e`', ["/bin/sh", "a", "e", "c"]),
        ("if a; then b; else c; fi", ["/bin/sh", "a", "b", "c", "fi"]),
        ("(a; { b; }) & # c", ["/bin/sh", "a", "b"]),
        ("eval 'a b'", ["/bin/sh", "eval", "a"]),
        ("env X=1 nice -n a b", ["env", "nice", "nice", "a", "a"]),
        ("\\a 'b", ["/bin/sh", "a"]),
        ("/usr/bin/time a", ["/usr/bin/time", "a", "a"]),
        ("su --command='a b' root", ["/bin/sh", "su", "a"]),
        ("start-stop-daemon --start --exec=/a -- b", ["start-stop-daemon", "/a", "b", "b"]),
        ("start-stop-daemon -x/a", ["start-stop-daemon", "/a"]),
    ],
)
def test_commands(text: str, words: list[str]) -> None:
    assert [word for kind, word, _ in seen(text) if kind == hookwords.PROGRAM] == words


@pytest.mark.parametrize("text", ["flock l -c 'a b'", "runuser -c 'a b' root", "watch -g 'a b'", "sg root 'a b'"])
def test_a_line_for_a_shell(text: str) -> None:
    assert (hookwords.PROGRAM, "a", "/cwd") in seen(text, hits=False)
    assert (hookwords.PROGRAM, "a", "/cwd") not in seen("env X='a b' c", hits=False)


def test_where() -> None:
    assert seen("cd /a && ./b; cd c; ./d; cd $X; ./e")[1:] == [
        (hookwords.PROGRAM, "./b", "/a"),
        (hookwords.PROGRAM, "./d", "/a/c"),
        (hookwords.PROGRAM, "./e", ""),
    ]


def test_other_words_change_where() -> None:
    assert seen("command cd /a; ./b", hits=False)[-1] == (hookwords.PROGRAM, "./b", "/a")
    for text in ("env -C /a ./b", "env -C/a ./b", "env --chdir=/a ./b", "env --chdir /a ./b"):
        assert seen(text, hits=False)[-1] == (hookwords.PROGRAM, "./b", "/a")
    found = hookwords.executed(["env", "PATH=/r", "a"], {"PATH": "/bin"}, "/cwd")
    assert [path for _, _, _, path in found] == ["/bin", "/r"]


def test_a_file_that_is_found_is_executed_itself() -> None:
    words = [(kind, word) for kind, word, _ in seen("find /r -exec {} \\;", hits=False)]
    assert words[-2:] == [(hookwords.ROOT, "/r"), (hookwords.SCRIPT, "/r")]


def test_scripts_and_roots() -> None:
    assert seen("python3 -u a b") == [(0, "python3", "/cwd"), (hookwords.SCRIPT, "a", "/cwd")]
    assert seen("perl -pe s/a/b/ c") == [(0, "perl", "/cwd")]
    assert seen("python3 -I -c a") == [(0, "python3", "/cwd")]
    assert (hookwords.SCRIPT, "b", "/cwd") in seen("sh -ec '. b'")
    assert (hookwords.ROOT, "/r", "/cwd") in seen("chroot --userspec=a /r b")


@pytest.mark.parametrize(
    ("text", "kind", "word"),
    [
        ("sh <a; b", hookwords.SCRIPT, "a"),
        ("python3 - < a >b", hookwords.SCRIPT, "a"),
        ("/r/b*/x y", hookwords.ROOT, "/r/"),
        ("sh /r/[ab]", hookwords.ROOT, "/r/"),
        ("for i in a; do ?; done", hookwords.ROOT, "."),
        ("env LD_PRELOAD=/r/x.so a", hookwords.SCRIPT, "/r/x.so"),
        ("export PYTHONPATH=/a:/r; b", hookwords.ROOT, "/r"),
        ("BASH_ENV=/r/x bash -c 'true'; b", hookwords.SCRIPT, "/r/x"),
        ("find /r /s -name '*' -exec {} +", hookwords.ROOT, "/s"),
        ("find /r -execdir ./x \\;", hookwords.ROOT, "/r"),
        ("find /r -exec a {} \\;", hookwords.PROGRAM, "a"),
        ("find /r -exec sh {} \\;", hookwords.ROOT, "/r"),
        ("linux32 a", hookwords.PROGRAM, "a"),
        ("export X=/a Y=/b; $Y/c", hookwords.PROGRAM, "/b/c"),
        ("X=/a Y=/b; $X/c", hookwords.PROGRAM, "/a/c"),
        ("${X:-/a}/b; c", hookwords.PROGRAM, "/a/b"),
        ("set -- a b; $2", hookwords.PROGRAM, "b"),
        ("sh -c 'exec \"$@\"' x a", hookwords.PROGRAM, "a"),
        ("sh -c '$0' a", hookwords.PROGRAM, "a"),
        ("PATH=/a; . b", hookwords.SCRIPT, "/a/b"),
        ("command cd /a; . b", hookwords.SCRIPT, "b"),
        ("function a { b; }", hookwords.PROGRAM, "b"),
        ("su -s a b", hookwords.PROGRAM, "a"),
        ("su --shell=a b", hookwords.PROGRAM, "a"),
        ("su a b", hookwords.SCRIPT, "b"),
        ("env --split-string='a b'", hookwords.PROGRAM, "a"),
        ("make --file=a", hookwords.SCRIPT, "a"),
        ("make -C/a", hookwords.ROOT, "/a"),
        ("/usr/bin/python3.13 a", hookwords.SCRIPT, "a"),
        ("python3 -m a", hookwords.ROOT, "."),
        ("setarch x86_64 a", hookwords.PROGRAM, "a"),
        ("script -c 'a b' /c", hookwords.PROGRAM, "a"),
        ("sh -c -e 'a b'", hookwords.PROGRAM, "a"),
        ("trap 'a b' EXIT; c", hookwords.PROGRAM, "a"),
        ("/lib64/ld-linux-x86-64.so.2 --list /r/a", hookwords.PROGRAM, "/r/a"),
        ("make -s -C /r", hookwords.ROOT, "/r"),
        ("awk -f /r/x /dev/null", hookwords.SCRIPT, "/r/x"),
        ("mount -aF /r/etc/fstab", hookwords.SCRIPT, "/r/etc/fstab"),
        ("umount -a -F /r/etc/fstab", hookwords.SCRIPT, "/r/etc/fstab"),
        ("make --file a", hookwords.SCRIPT, "a"),
        ("cd /r && make", hookwords.ROOT, "."),
        ("useradd -m -R /r bob", hookwords.ROOT, "/r"),
        ("chpasswd --root=/r", hookwords.ROOT, "/r"),
        ("start-stop-daemon -S --chroot /r -x /a", hookwords.ROOT, "/r"),
        ("ip netns exec test a", hookwords.PROGRAM, "a"),
        ("run-parts --test /r", hookwords.ROOT, "/r"),
        ("crontab -u root /r/x", hookwords.SCRIPT, "/r/x"),
    ],
)
def test_what_else_says_what_is_done(text: str, kind: int, word: str) -> None:
    assert (kind, word) in [told[:2] for told in seen(text)], seen(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cp -p /a b", {(THROUGH, "/a"), (THROUGH, "b")}),
        ("cp --remove-destination /a /b", {(AT, "/a"), (AT, "/b")}),
        ("ln -sf /a /b", {(INTO, "/a"), (INTO, "/b")}),
        ("ln -sfn /a /b", {(AT, "/a"), (AT, "/b")}),
        ("rm -rf /r/* /s", {(AT, "/r/"), (AT, "/s")}),
        ("dd if=/a of=/b bs=1", {(THROUGH, "/a"), (THROUGH, "/b"), (THROUGH, "1")}),
        ("tar -x -C /r -f x --directory=/s", {(THROUGH, "/r"), (THROUGH, "x"), (THROUGH, "/s")}),
        ("echo a >/r/x 2>&1 </r/y >>z", {(THROUGH, "/r/x"), (THROUGH, "z")}),
        (">/r/x", {(THROUGH, "/r/x")}),
        ("nice chown -h 0 /r/x", {(AT, "0"), (AT, "/r/x")}),
        ("sh -c 'umask 7; a >|/r/x'", {(THROUGH, "/r/x")}),
        ("find /r -delete", {(AT, "/r")}),
        ("find /r -name x; ls /r; [ -e /r ]; grep x /r; echo /r", set()),
    ],
)
def test_what_is_worked_on(text: str, words: set[tuple[int, str]]) -> None:
    assert {told[:2] for told in seen(text) if told[0] in hookfiles.KINDS} == words


def test_what_says_nothing() -> None:
    told = seen("cat <a; ls /r/*; find /r -name x; sh 2>&1 >b; echo LD_PRELOAD; cat <<E")
    assert {word for _, word, _ in told} == {"/bin/sh", "cat", "ls", "find", "sh", "echo", "b"}
    told = seen("useradd -d /r/home bob; start-stop-daemon -K --pidfile=/r/x; ip link add r type veth; make -C /a")
    assert not {"/r/home", "/r/x", "."} & {word for _, word, _ in told}, told


@given(st.text(alphabet="ab/ ;&|()`*?[$\"'\\{}<>=#\n-csh!cd ", max_size=60), st.booleans())
def test_any_text_can_be_looked_at(text: str, hits: bool) -> None:
    for kind, word, _ in seen(text, hits, a="b"):
        assert kind in range(6) and isinstance(word, str)
