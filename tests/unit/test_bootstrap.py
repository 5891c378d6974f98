"""jailctl bootstrap: its command line, what a root is made of, how far it is, and the jail's stanza."""

from __future__ import annotations

import io
import os
import shutil
import termios
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailng.ctl import bootstrap, importing, recipe, roots, stanza, userland
from jailng.ctl.progress import Progress
from jailng.ctl.recipe import Recipe, Source
from jailng.errors import JailError, UsageError

_HOST = """\
# The host's.
Types: deb deb-src
URIs: http://deb.example.org/debian
Suites: trixie trixie-updates trixie-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.pgp

Types: deb
URIs: http://security.example.org
Suites: trixie-security
Components: main

Types: deb
URIs: file:/usr/share/own
Suites: ./
Trusted: yes

Enabled: no
Types: deb
URIs: http://disabled.example.org
Suites: trixie
Components: main
"""


@pytest.fixture
def apt(tmp_path: Path) -> Path:
    """An /etc/apt."""
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/debian.sources").write_text(_HOST)
    return tmp_path


def test_the_command_line() -> None:
    wanted = bootstrap.parse(
        "/jail/a/ --suite sid --include a1,b2 --include c3 --jail cell --address 192.0.2.1,2001:db8::1 "
        "--hostname cell.example.org --no-cache".split()
    )
    assert wanted.path == Path("/jail/a")
    assert (wanted.suite, wanted.include, wanted.jail) == ("sid", ["a1,b2", "c3"], "cell")
    assert wanted.addresses == ["192.0.2.1", "2001:db8::1"]
    assert wanted.hostname == "cell.example.org" and not wanted.keep


@pytest.mark.parametrize(
    "line", ["", "/a /b", "--nosuch /a", "/a --suite", "/a --address 192.0.2.1", "/a --no-cache=yes"]
)
def test_words_that_make_no_command(line: str) -> None:
    with pytest.raises(UsageError, match="usage: jailctl bootstrap"):
        bootstrap.parse(line.split())


@pytest.mark.parametrize("line", ["/a", "--address 192.0.2.1 /a.tar /a", "--hostname a.example.org /a.tar /a"])
def test_words_that_import_nothing(line: str) -> None:
    """A host name is for the stanza: it was taken without one, and told nobody."""
    with pytest.raises(UsageError, match="usage: jailctl import"):
        importing.parse(line.split())


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--suite", "../x"], "--suite ../x"),
        (["--suite", ""], "--suite"),
        (["--jail", "7"], "--jail 7"),
        (["--jail", "../cell"], "--jail ../cell"),
        (["--jail", "a b"], "--jail a b"),
        (["--jail", "j", "--address", "192.0.2.256"], "--address 192.0.2.256"),
        (["--jail", "j", "--address", "192.0.2.1,"], "an address is missing"),
        (["--hostname", "-x"], "--hostname -x"),
        (["--hostname", 'a"; exec.prestart="id'], "--hostname"),
        (["--hostname", "a\nb"], "--hostname"),
    ],
)
def test_values_that_cannot_be(words: list[str], complaint: str) -> None:
    with pytest.raises(JailError) as caught:
        bootstrap.parse(["/jail/x", *words])
    assert complaint in str(caught.value)
    assert not isinstance(caught.value, UsageError)


def test_a_root_has_the_base_and_what_was_asked_for() -> None:
    assert set(recipe.packages([])) == set(recipe.BASE)
    assert recipe.packages(["zsh, tcsh", "cron"]) == recipe.packages(["cron zsh"])
    assert "zsh" in recipe.packages(["zsh"])


def test_another_of_the_kind_takes_the_place_of_the_usual_one() -> None:
    assert "inetutils-syslogd" not in recipe.packages(["rsyslog"])
    assert "openbsd-inetd" in recipe.packages(["rsyslog"])
    assert {"rsyslog", "inetutils-syslogd"} <= set(recipe.packages(["rsyslog,inetutils-syslogd"]))


@pytest.mark.parametrize("name", ["Foo", "a;reboot", "-x", "$(id)", "a/b", "--opt=x"])
def test_what_is_no_package(name: str) -> None:
    with pytest.raises(JailError, match="not the name of a package"):
        recipe.packages([name])


def test_the_hosts_sources_less_those_of_its_own_disk(apt: Path) -> None:
    first, second = recipe.host_sources("trixie", "trixie", apt)
    assert first.uris == "http://deb.example.org/debian"
    assert first.suites == "trixie trixie-updates"
    assert first.components == "main contrib"
    assert first.signed_by == "/usr/share/keyrings/debian-archive-keyring.pgp"
    assert second.suites == "trixie-security"


def test_another_suite_of_the_hosts_sources(apt: Path) -> None:
    suites = [source.suites for source in recipe.host_sources("bookworm", "trixie", apt)]
    assert suites == ["bookworm bookworm-updates", "bookworm-security"]
    assert [source.suites for source in recipe.host_sources("sid", "trixie", apt)] == ["sid"]


def test_sources_in_the_one_line_format(tmp_path: Path) -> None:
    text = (
        "# deb http://old.example.org trixie main\n"
        "deb [arch=amd64 signed-by=/k.gpg] http://deb.example.org/debian trixie main contrib # ours\n"
        "deb-src http://deb.example.org/debian trixie main\n"
        "deb cdrom:[Debian]/ trixie main\n"
    )
    (tmp_path / "sources.list").write_text(text)
    (found,) = recipe.host_sources("trixie", "trixie", tmp_path)
    assert found == Source("http://deb.example.org/debian", "trixie", "main contrib", "/k.gpg")


def test_no_source_of_that_suite(tmp_path: Path) -> None:
    with pytest.raises(JailError, match="no source of"):
        recipe.host_sources("trixie", "trixie", tmp_path)


def test_sources_on_the_hosts_own_disk_alone(tmp_path: Path) -> None:
    """They are of that suite, so that it said what was not so."""
    (tmp_path / "sources.list").write_text("deb file:/srv/mirror trixie main\n")
    with pytest.raises(JailError, match="has the suite trixie at file:/srv/mirror alone: "):
        recipe.host_sources("trixie", "trixie", tmp_path)


def test_a_key_within_the_source_is_kept() -> None:
    text = (
        "Types: deb\nURIs: http://x.example.org\nSuites: trixie\nComponents: main\nSigned-By:\n -----BEGIN\n .\n abc\n"
    )
    (found,) = recipe.deb822(text)
    assert found.signed_by == "\n -----BEGIN\n .\n abc"
    assert recipe.deb822(found.text()) == [found]


def test_the_hosts_suite() -> None:
    assert recipe.host_suite('ID=debian\nVERSION_CODENAME="trixie"\n') == "trixie"
    with pytest.raises(JailError, match="give --suite"):
        recipe.host_suite("ID=x\n")


def test_whatever_differs_is_another_root_in_the_cache() -> None:
    source = Source("http://deb.example.org", "trixie", "main")
    plain = Recipe("trixie", "amd64", ("a", "b"), (source,))
    others = [
        Recipe("sid", "amd64", ("a", "b"), (source,)),
        Recipe("trixie", "arm64", ("a", "b"), (source,)),
        Recipe("trixie", "amd64", ("a", "bc"), (source,)),
        Recipe("trixie", "amd64", ("ab",), (source,)),
        Recipe("trixie", "amd64", ("a", "b"), (Source("http://other.example.org", "trixie", "main"),)),
    ]
    assert len({plain.key, *[other.key for other in others]}) == 6
    assert plain.key == Recipe("trixie", "amd64", ("a", "b"), (source,)).key
    assert plain.key.startswith("trixie-amd64-") and "/" not in plain.key


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None if program == "mmdebstrap" else f"/usr/bin/{program}")
    with pytest.raises(JailError, match=r"apt-get install mmdebstrap$"):
        roots.check_tools()


def test_the_stanza() -> None:
    assert stanza.text("cell", "/jail/a b", "cell.example.org", ["192.0.2.1", "192.0.2.2", "2001:db8::1"]) == (
        "# Made by jailctl bootstrap.\n"
        "cell {\n"
        '\tpath = "/jail/a b";\n'
        '\thost.hostname = "cell.example.org";\n'
        '\tip4.addr = "192.0.2.1", "192.0.2.2";\n'
        '\tip6.addr = "2001:db8::1";\n'
        '\texec.start = "/bin/sh /etc/rc";\n'
        '\texec.stop = "/bin/sh /etc/rc.shutdown";\n'
        "\texec.clean;\n"
        "\tmount.devfs;\n"
        "}\n"
    )


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_a_quoted_word_ends_where_it_should(word: str) -> None:
    quoted = stanza.quoted(word)
    assert quoted[0] == quoted[-1] == '"'
    back, escaped = "", False
    for letter in quoted[1:-1]:
        if not escaped:
            assert letter not in '"$'
        if letter == "\\" and not escaped:
            escaped = True
            continue
        back, escaped = back + letter, False
    assert back == word and not escaped


def test_a_stanza_that_is_there_is_left_alone(tmp_path: Path) -> None:
    directory = tmp_path / "jail.conf.d"
    place = stanza.write("cell", "first", directory)
    with pytest.raises(JailError, match="File exists"):
        stanza.write("cell", "second", directory)
    assert place.read_text() == "first"
    assert [path.name for path in directory.iterdir()] == ["cell.conf"]


_SAID = """\
I: running apt-get update...
Get:1 http://deb.example.org/debian trixie InRelease [140 kB]
I: downloading packages with apt...
0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.
Get:1 http://deb.example.org/debian trixie/main amd64 base-files amd64 13.8 [73 kB]
Get:2 http://deb.example.org/debian trixie/main amd64 libc6 amd64 2.41 [2900 kB]
I: extracting archives...
I: installing essential packages...
Unpacking libc6:amd64 (2.41) ...
Setting up libc6:amd64 (2.41) ...
Unpacking base-files (13.8) ...
Setting up base-files (13.8) ...
I: installing remaining packages inside the chroot...
0 upgraded, 1 newly installed, 0 to remove and 0 not upgraded.
Unpacking cron (3.0) ...
Setting up cron (3.0) ...
"""


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_progress_is_a_line_a_step() -> None:
    to = io.StringIO()
    progress = Progress(to)
    for line in _SAID.splitlines():
        progress.hear(line)
    progress.close("done")
    lines = to.getvalue().splitlines()
    assert lines[0] == "jailctl: bootstrap:   0% lists of packages"
    assert lines[-2:] == ["jailctl: bootstrap:  55% installing the others", "done"]
    assert len(lines) == 6
    assert "\x1b" not in to.getvalue()


def test_on_a_terminal_progress_is_one_line_that_only_grows() -> None:
    to = _Terminal()
    progress = Progress(to)
    percents = []
    for line in _SAID.splitlines():
        progress.hear(line)
        percents.append(progress.percent)
    progress.close("done")
    assert percents == sorted(percents)
    assert percents[0] == 0 and percents[-1] == 95
    before, _, last = to.getvalue().rpartition("\r\x1b[K")
    assert last == "done\n" and "\n" not in before
    assert " 40%  installing the essential ones, 1 of 2: libc6" in before
    assert all(len(shown) <= 80 for shown in before.split("\r\x1b[K"))


def test_on_a_narrow_terminal_progress_stays_on_its_line() -> None:
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, 40))
    with open(slave, "w") as to:
        progress = Progress(to)
        for line in _SAID.splitlines():
            progress.hear(line)
    said = bytearray()
    with suppress(OSError):  # EIO: all that was written has been read, which comes in pieces
        while part := os.read(master, 65536):
            said += part
    os.close(master)
    shown = said.decode().split("\r\x1b[K")
    assert " 40%  installing the essential ones, 1 " in shown
    assert max(map(len, shown)) == 39


@pytest.mark.parametrize(
    ("host", "resolved", "jail"),
    [
        ("# By hand.\nsearch example.org\nnameserver 192.0.2.53\nnameserver ::1\n", "nameserver 192.0.2.54\n",
         "search example.org\nnameserver 192.0.2.53\n"),
        ("nameserver 127.0.0.53\noptions edns0\n", "# Do not edit.\n\nnameserver 192.0.2.54\nsearch .\n",
         "nameserver 192.0.2.54\nsearch .\n"),
        ("nameserver 127.0.0.1\nsearch example.org\n", None, "search example.org\n# nameserver 192.0.2.53\n"),
        (None, "# nothing\n", "# nameserver 192.0.2.53\n"),
    ],
)  # fmt: skip
def test_the_name_servers_of_a_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str | None, resolved: str | None, jail: str
) -> None:
    """One on the host's loopback is nobody there: what systemd-resolved asks is taken in its place."""
    places = (tmp_path / "host", tmp_path / "resolved")
    for place, text in zip(places, (host, resolved), strict=True):
        if text is not None:
            place.write_text(text)
    monkeypatch.setattr(userland, "_RESOLVERS", places)
    userland._resolve(tmp_path / "jail")
    assert (tmp_path / "jail").read_text() == jail
