from __future__ import annotations

import json
import posix
import shlex
import subprocess
import sys
import types
from pathlib import Path
from xml.etree import ElementTree

import pytest

from jailng.cli import jls
from jailng.params.model import Parameters
from jailng.params.values import unescape
from tests.fidelity.jails import Jail, Jails

SOURCE = Path(__file__).parents[2] / "src"

CELL = Jail(
    1, "cell", path="/usr/jail/cell", ip4__addr="ep0|192.168.10.2/24", host__hostname="cell.hsc.fr", ip4="new",
    meta="a=2\nb=3", env="x y",
)  # fmt: skip
BARE = Jail(22, "bare", persist="true", allow__suser="false")
DYING = Jail(30, "old", dying=True)


def run(capfd: pytest.CaptureFixture[str], words: str, *records: Jail) -> tuple[str, str, int]:
    status = jls.run(shlex.split(words), Jails(*records))
    out, err = capfd.readouterr()
    return out, err, status


def lines(capfd: pytest.CaptureFixture[str], words: str, *records: Jail) -> list[str]:
    out, err, status = run(capfd, words, *records)
    assert (err, status) == ("", 0)
    return out.splitlines()


def test_all_columns_pair_up(capfd: pytest.CaptureFixture[str]) -> None:
    header, row = lines(capfd, "-hq", BARE)
    values = dict(zip(header.split(), shlex.split(row), strict=True))
    assert values["jid"] == "22"
    assert values["ip4.addr"] == ""
    assert values["allow.suser"] == "false"
    assert list(values)[:3] == ["devfs_ruleset", "dying", "enforce_statfs"]


def test_n_without_names_is_all(capfd: pytest.CaptureFixture[str]) -> None:
    (row,) = lines(capfd, "-nq", BARE)
    words = shlex.split(row)
    assert "persist" in words
    assert "nodying" in words
    assert "allow.nosuser" in words
    assert "allow.mount.nodevfs" in words
    assert "ip4=new" in words
    assert "ip4.addr=" in words
    assert "cpuset.id=22" in words
    assert [word for word in words if word.startswith("meta")] == ["meta="]


@pytest.mark.parametrize("record", [CELL, BARE], ids=lambda record: record.name)
def test_s_makes_the_same_jail_again(capfd: pytest.CaptureFixture[str], record: Jail) -> None:
    jail = Jail(record.jid, record.name)
    jail.params = record.params | {"meta": "a b"}  # no newlines: jls does not quote them, on FreeBSD either
    out, _, _ = run(capfd, "-s", jail)
    again = Parameters()
    for word in shlex.split(out):
        name, sign, text = word.partition("=")
        again.add(name, text if sign else None)
    again.settle()
    copy = Jail(record.jid, record.name)
    for line in again.to_lines():
        name, _, text = line.partition("=")
        copy.params[name] = unescape(text)
    assert run(capfd, "-s", copy)[0] == out


def test_s_leaves_out_what_cannot_be_set(capfd: pytest.CaptureFixture[str]) -> None:
    (row,) = lines(capfd, "-s", Jail(5, ip4="inherit", ip6="inherit"))
    names = {word.partition("=")[0] for word in shlex.split(row)}
    assert {"parent", "dying", "nodying", "cpuset.id", "children.cur", "ip4.addr", "ip4.saddrsel"}.isdisjoint(names)
    assert {"jid", "name", "path", "host.hostname", "allow.nochflags", "ip4", "children.max"} <= names


def test_missing_keys(capfd: pytest.CaptureFixture[str]) -> None:
    # tests/sys/kern/jailmeta.sh of FreeBSD: nothing for a key that is not there, even where that leaves spaces.
    assert run(capfd, "meta.c meta meta.a", Jail(1))[0] == ' "" \n'
    assert run(capfd, "meta.c", Jail(1))[0] == "\n"
    assert run(capfd, "-n meta.c", Jail(1))[0] == "meta.c\n"


def test_json(capfd: pytest.CaptureFixture[str]) -> None:
    out, _, _ = run(capfd, "--libxo json", CELL, BARE)
    assert out == (
        '{"__version": "2", "jail-information": {"jail": ['
        '{"jid":1,"ipv4":"192.168.10.2","hostname":"cell.hsc.fr","path":"/usr/jail/cell"}, '
        '{"jid":22,"ipv4":"","hostname":"","path":"/"}]}}\n'
    )


@pytest.mark.parametrize(
    "words", ["--libxo json -n persist jid", "-n --libxo=json persist jid", "-n persist jid --libxo:J"]
)
def test_json_option_may_stand_anywhere(capfd: pytest.CaptureFixture[str], words: str) -> None:
    out, _, _ = run(capfd, words, BARE)
    assert json.loads(out)["jail-information"]["jail"] == [{"persist": True, "jid": "22"}]


def test_json_of_parameters(capfd: pytest.CaptureFixture[str]) -> None:
    out, _, _ = run(capfd, "--libxo json jid persist ip4.addr ip6.addr host.hostname meta meta.c nopersist", CELL)
    assert json.loads(out) == {
        "__version": "2",
        "jail-information": {
            "jail": [
                {
                    "jid": "1", "persist": "false", "ip4.addr": ["192.168.10.2"], "ip6.addr": [],
                    "host.hostname": "cell.hsc.fr", "meta": "a=2\nb=3", "nopersist": "true",
                }
            ]
        },
    }  # fmt: skip


def test_json_of_missing_keys_and_of_lists_alone(capfd: pytest.CaptureFixture[str]) -> None:
    head = '{"__version": "2", "jail-information": {"jail": ['
    assert run(capfd, "-j cell --libxo json meta.c meta.d", CELL)[0] == head + "{}]}}\n"
    assert run(capfd, "-j cell --libxo json meta.b", CELL)[0] == head + '{"meta.b":"3"}]}}\n'
    assert run(capfd, "--libxo json ip4.addr", CELL)[0] == head + '{"ip4.addr": ["192.168.10.2"]}]}}\n'


def test_json_verbose(capfd: pytest.CaptureFixture[str]) -> None:
    out, _, _ = run(capfd, "-v --libxo json", CELL)
    (jail,) = json.loads(out)["jail-information"]["jail"]
    assert jail == {
        "jid": 1, "hostname": "cell.hsc.fr", "path": "/usr/jail/cell", "name": "cell", "state": "ACTIVE", "cpusetid": 1,
        "ipv4_addrs": ["192.168.10.2"], "ipv6_addrs": [],
    }  # fmt: skip


def test_json_all_and_by_name(capfd: pytest.CaptureFixture[str]) -> None:
    out, _, _ = run(capfd, "-h --libxo json", CELL)
    assert json.loads(out)["jail-information"]["jail"][0]["allow.suser"] == "true"
    out, _, _ = run(capfd, "-N --libxo json", CELL)
    assert json.loads(out)["jail-information"]["jail"][0]["name"] == "cell"
    out, _, _ = run(capfd, "-s --libxo json", CELL)
    assert json.loads(out)["jail-information"]["jail"][0]["allow.suser"] is True


def test_json_escapes(capfd: pytest.CaptureFixture[str]) -> None:
    odd = Jail(1, host__hostname='a"b\\c\x1b\n\x85é\udcff')
    out, _, _ = run(capfd, "--libxo json host.hostname", odd)
    assert json.loads(out)["jail-information"]["jail"] == [{"host.hostname": 'a"b\\c\x1b\n\x85é\\xff'}]


def test_json_turns_no_line_around(capfd: pytest.CaptureFixture[str]) -> None:
    """What a terminal shows otherwise than it stands there: bidirectional controls, separators, tags."""
    name = "a\u202eb\u2066\u2028\u2029\u200f\ufeff\U000e0041é日"
    out, _, _ = run(capfd, "--libxo json host.hostname path", Jail(1, host__hostname=name, path=f"/{name}"))
    assert not [char for char in out if not char.isprintable() and char != "\n"]
    assert json.loads(out)["jail-information"]["jail"] == [{"host.hostname": name, "path": f"/{name}"}]
    assert "é日" in out


def test_lines_of_a_jail_in_a_jail_are_none(capfd: pytest.CaptureFixture[str]) -> None:
    """Whose root has written them, and might write another jail's row."""
    own = Jail(1, "a", meta="k=1\n2 web")
    deep = Jail(2, "a.b", meta="k=1\n9 web\tx", env="X=1\n9 web")
    assert run(capfd, "jid meta", own)[0] == "1 k=1\n2 web\n"
    assert run(capfd, "jid meta env", deep)[0] == "2 k=1\\x0a9 web\tx X=1\\x0a9 web\n"
    for words in ("-n", "-s", "-q", "-n meta env", "-h all"):
        assert not [line for line in run(capfd, words, deep)[0].splitlines() if line.startswith("9")]
    out, _, _ = run(capfd, "--libxo xml meta host.hostname", Jail(2, "a.b", meta="k=1\n9", host__hostname="x\ny"), own)
    assert out.count("\n") == 1  # the one of a's own
    first, second = ElementTree.fromstring(out).findall("jail")
    assert (first.findtext("meta"), first.findtext("host.hostname")) == ("k=1\n9", "x\ny")
    assert second.findtext("meta") == "k=1\n2 web"


def test_xml_is_well_formed_whatever_a_jail_is_called(capfd: pytest.CaptureFixture[str]) -> None:
    odd = Jail(1, host__hostname="<a>&'\"\x1b\n\x85é\udcff", path="]]>", meta="a\tb")
    for words in ("", "-v", "-N", "host.hostname meta", "-n"):
        for style in ("xml", "xml,pretty"):
            out, err, status = run(capfd, f"--libxo {style} {words}", odd, CELL)
            assert (err, status) == ("", 0)
            root = ElementTree.fromstring(out)
            assert [len(jail) > 0 for jail in root.findall("jail")] == [True, True]
    root = ElementTree.fromstring(run(capfd, "--libxo xml host.hostname", odd)[0])
    assert root.findtext("jail/host.hostname") == "<a>&'\"\\x1b\n\\x85é\\xff"


def test_pretty_json_is_the_same_json(capfd: pytest.CaptureFixture[str]) -> None:
    for words in ("", "-v", "-N", "-n", "-s", "meta.none", "ip4.addr"):
        plain = run(capfd, f"--libxo json {words}", CELL, BARE)[0]
        for style in ("json,pretty", ":JPi7", "json,pretty,indent=0"):
            assert json.loads(run(capfd, f"--libxo {style} {words}", CELL, BARE)[0]) == json.loads(plain)


def test_what_is_not_asked_for_is_not_loaded() -> None:
    """Of the styles a command line pays for the one that it has."""
    for words, wanted in (
        ([], set[str]()),
        (["--libxo", "json"], {"jailng.cli.jls_libxo", "jailng.cli.jls_json"}),
        (["--libxo:X"], {"jailng.cli.jls_libxo", "jailng.cli.jls_xml"}),
    ):
        script = (
            f"import sys, types; sys.path.append({str(SOURCE)!r});"
            "r = types.SimpleNamespace(jails=lambda: [], find=lambda text: None);"
            f"import jailng.cli.jls as jls; jls.run({words!r}, r);"
            "print(); print(*[name for name in sys.modules if name.startswith('jailng.cli.jls_')])"
        )
        done = subprocess.run([sys.executable, "-IS", "-c", script], capture_output=True, text=True, check=True)
        assert set(done.stdout.splitlines()[-1].split()) == wanted


def test_dying_jails_are_hidden(capfd: pytest.CaptureFixture[str]) -> None:
    assert lines(capfd, "name", CELL, DYING) == ["cell"]
    assert lines(capfd, "-d name", CELL, DYING) == ["cell", "old"]
    assert lines(capfd, "-a name dying", CELL, DYING) == ["cell false", "old true"]
    assert lines(capfd, "-dv", DYING)[5] == "        old                           DYING"
    assert run(capfd, "-j old name", DYING) == ("", 'jls: jail "old" not found\n', 1)


def test_c_only_asks(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "-cj cell", CELL) == ("", "", 0)
    assert run(capfd, "-c -j 1", CELL) == ("", "", 0)
    assert run(capfd, "-c -j x", CELL) == ("", "", 1)
    assert run(capfd, "-cj old", DYING) == ("", "", 1)
    assert run(capfd, "-cdj old", DYING) == ("", "", 0)
    usage = ("", f"jls: {jls.USAGE}\n", 1)
    assert run(capfd, "-c", CELL) == usage
    assert run(capfd, "-cj cell name", CELL) == usage


@pytest.mark.parametrize("words", ["-x", "-j", "--help", "-nX", "--version"])
def test_usage(capfd: pytest.CaptureFixture[str], words: str) -> None:
    assert run(capfd, words, CELL) == ("", "jls: usage: jls [-dhNnqv] [-j jail] [param ...]\n", 1)


def test_options_end_at_the_first_word(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "name -n", CELL) == ("", "jls: unknown parameter: -n\n", 1)
    assert lines(capfd, "-- name", CELL) == ["cell"]


def test_a_parameter_is_printed_once(capfd: pytest.CaptureFixture[str]) -> None:
    assert lines(capfd, "name name", CELL) == ["cell"]
    header = lines(capfd, "-h name all", CELL)[0]
    assert header.split().count("name") == 1
    assert header.startswith("name ")


def test_nothing_steers_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    evil = Jail(1, "\x1b[2Jx", host__hostname="h\r\n", path="/a\x9b")
    for words in ("", "-N", "-v", "-n", "-h name host.hostname path", "-s"):
        out = run(capfd, words, evil)[0]
        assert all(char.isprintable() or char == "\n" for char in out), words
    assert lines(capfd, "name host.hostname path", evil) == ["\\x1b[2Jx h\\x0d\\x0a /a\\x9b"]


def test_bytes_that_are_not_utf8(capfd: pytest.CaptureFixture[str]) -> None:
    assert lines(capfd, "path", Jail(1, path="/a\udcff")) == ["/a\\xff"]


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("plain", "plain"), ("a b", '"a b"'), ("a\tb", '"a\tb"'), ("it's", '"it\'s"'), ('say "x"', "'say \"x\"'"),
        ("it's \"x\"", '"it\'s "x""'), ("", '""'), ("back\\slash", "back\\slash"),
    ],
)  # fmt: skip
def test_quotes(capfd: pytest.CaptureFixture[str], value: str, quoted: str) -> None:
    assert run(capfd, "-q meta", Jail(1, meta=value))[0] == f"{quoted}\n"
    assert run(capfd, "-nq meta", Jail(1, meta=value))[0] == f"meta={quoted}\n"
    assert run(capfd, "meta", Jail(1, meta=value))[0] == f"{value or quoted}\n"


def test_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[int, bytes]] = []

    def write(fd: int, data: bytes) -> int:
        written.append((fd, data))
        return len(data)

    monkeypatch.setattr(posix, "write", write)
    assert jls.run([], Jails(*[Jail(jid) for jid in range(1, 200)])) == 0
    assert len(written) == 1
    assert written[0][1].count(b"\n") == 200


def test_a_short_write_is_carried_on(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []

    def write(_fd: int, data: bytes) -> int:
        written.append(data[:3])
        return len(data[:3])

    monkeypatch.setattr(posix, "write", write)
    assert jls.run(["name"], Jails(CELL, BARE)) == 0
    assert b"".join(written) == b"cell\nbare\n"


def test_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(_fd: int, _data: bytes) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(posix, "write", write)
    assert jls.run([], Jails(CELL)) == 1


def test_a_full_disk_is_an_error(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    real = posix.write

    def write(fd: int, data: bytes) -> int:
        if fd == 1:
            raise OSError(28, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(posix, "write", write)
    assert run(capfd, "", CELL) == ("", "jls: standard output: No space left on device\n", 1)


def test_main_reads_the_registry(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("jailng.core.registry")
    vars(module).update(jails=Jails(CELL).jails, find=Jails(CELL).find)
    monkeypatch.setitem(sys.modules, "jailng.core.registry", module)
    monkeypatch.setattr("jailng.core.registry", module, raising=False)
    assert jls.main(["name"]) == 0
    assert capfd.readouterr().out == "cell\n"


def test_the_default_form_does_not_load_the_table() -> None:
    script = (
        f"import sys; sys.path.append({str(SOURCE)!r}); before = set(sys.modules);"
        "import types; r = types.SimpleNamespace(jails=lambda: [], find=lambda text: None);"
        "import jailng.cli.jls as jls; jls.run([], r); jls.run(['-N'], r); jls.run(['-v'], r);"
        "print(*sorted(set(sys.modules) - before - {'types'}))"
    )
    done = subprocess.run([sys.executable, "-IS", "-c", script], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1].split()
    assert "jailng.params.values" in loaded
    assert "jailng.params.table" not in loaded
    assert "json" not in loaded
