"""Completions of bash, zsh and fish: what they offer, and that they know the options and parameters there are."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailng.cli import ipnat, jail, jexec, rctl
from jailng.params.table import lookup, names
from tests.zsh import Zsh

CHECKOUT = Path(__file__).resolve().parents[2]
SHARE = CHECKOUT / "share"
FILES = {shell: SHARE / "completions" / name for shell, name in
         {"bash": "jailng.bash", "zsh": "_jailng", "fish": "jailng.fish"}.items()}  # fmt: skip
LETTERS = {
    "jail": set(jail._LETTERS) - {":"},
    "jls": set("cdhjNnqsv"),
    "jexec": set(jexec._LETTERS) - {":", "n"},
    "ipnat": set(ipnat._LETTERS) - {":", *ipnat._NEVER},
    "rctl": set(rctl._LETTERS),
}
# Commands with answers that are always the same; jailctl is the checkout's.
FAKES = {
    "jls": "[ \"$1\" = name ] && printf 'cell\\nweb one\\n'",
    "jail": "case $* in *other*) echo 'name=third';; "
    "*) printf 'name=cell|path=/x\\nname=conf|persist\\npersist|name=dns|path=/\\nname=\"two words\"\\n' ;; esac",
    "jexec": ":",
    "jailctl": f'exec {CHECKOUT}/bin/jailctl "$@"',
}


def _needs(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The completions, with a list of parameters beside them, and a PATH with the commands that they ask."""
    made = tmp_path_factory.mktemp("completions")
    listed = subprocess.run([SHARE / "generate", "parameters"], check=True, stdout=subprocess.PIPE, text=True).stdout
    (made / "parameters").write_text(listed)
    for file in FILES.values():
        text = file.read_text()
        assert text.count("/usr/share/jailng/") == 1
        (made / file.name).write_text(text.replace("/usr/share/jailng/", f"{made}/"))
    (made / "bin").mkdir()
    for name, script in FAKES.items():
        (made / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (made / "bin" / name).chmod(0o755)
    return made


def test_the_list_of_parameters_is_the_table(place: Path) -> None:
    rows = [line.split() for line in (place / "parameters").read_text().splitlines()]
    assert [row[0] for row in rows] == names()
    for name, who, kind, *words in rows:
        found = lookup(name)
        assert found is not None
        assert (kind, tuple(words)) == (found.kind, found.words)
        if found.refused:
            assert who in ("jls", "none")
        else:
            assert who == ("jls" if found.read_only else "jail" if found.pseudo else "both")


@pytest.mark.parametrize("command", sorted(LETTERS))
def test_the_options_are_those_of_the_commands(command: str) -> None:
    bash = FILES["bash"].read_text()
    function = bash[bash.index(f"_jailng_{command}()") :].partition("\n}\n")[0]
    (line,) = re.findall(r"printf '%s\\n' (-[clCa] [^)]*)\)", function)
    assert {word[1:] for word in line.split() if not word.startswith("--")} == LETTERS[command]
    zsh = FILES["zsh"].read_text()
    function = zsh[zsh.index(f"_jailng_{command}()") :].partition("\n}\n")[0]
    assert set(re.findall(r"'(?:\([^)]*\)|\*)?-(\w)\+?\[", function)) == LETTERS[command]
    assert (
        set(re.findall(rf"^complete -c {command} -s (\w)", FILES["fish"].read_text(), re.MULTILINE)) == LETTERS[command]
    )


_BASH = """
compopt() { :; }
. "$1"/jailng.bash
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_jailng_"$1"
[[ ${#COMPREPLY[@]} -eq 0 ]] || printf '%s\\n' "${COMPREPLY[@]}"
"""


def _bash(place: Path, *words: str) -> list[str]:
    path = f"{place}/bin:/usr/bin:/bin"
    argv = ["bash", "--norc", "-c", _BASH, "bash", str(place), *words]
    done = subprocess.run(argv, env={"PATH": path}, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (0, "")
    return sorted(set(done.stdout.splitlines()))


# As readline breaks the line: "=" is a word of its own.
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("jail|-r|", ["\\*", "cell", "conf", "dns", "two\\ words", "web\\ one"]),
        ("jail|-R|", ["\\*", "cell", "web\\ one"]),
        ("jail|-v|-r|d", ["dns"]),
        ("jail|-f|other|-c|t", ["third"]),
        ("jail|-C|con", ["conf"]),
        ("jail|-c|dn", ["dns"]),
        ("jail|-m|we", ["web\\ one"]),
        ("jail|-c|pers", ["persist"]),
        ("jail|-c|nop", ["nopersist"]),
        ("jail|-c|ip4.s", ["ip4.saddrsel"]),
        ("jail|-c|name|=|x|allow.mount.notm", ["allow.mount.notmpfs"]),
        ("jail|-c|exec.presta", ["exec.prestart="]),
        ("jail|-c|exec.presto", ["exec.prestop="]),
        ("jail|-c|dyi", []),
        ("jail|-c|linux.osn", []),
        ("jail|-c|name|=|c", ["cell"]),
        ("jail|-c|name|=", ["cell", "web\\ one"]),
        ("jail|-c|ip4|=|", ["disable", "inherit", "new"]),
        ("jail|-c|ip4=i", ["ip4=inherit"]),
        ("jail|-c|persist|=|", ["false", "true"]),
        ("jail|-c|path|=|/us", ["/usr"]),
        ("jail|-c|path=/us", ["path=/usr"]),
        ("jail|-c|mount.fstab|=|/etc/fsta", ["/etc/fstab"]),
        ("jail|-c|exec.system_user|=|roo", ["root"]),
        ("jail|-c|command|=|chgr", ["chgrp"]),
        ("jail|-c|command=true|/etc/debian_v", ["/etc/debian_version"]),
        ("jail|-f|/etc/debian_v", ["/etc/debian_version"]),
        ("jail|-u|roo", ["root"]),
        ("jail|-p|", []),
        ("jail|--p", ["--plan"]),
        ("jail|/us", ["/usr"]),
        ("jls|-j|", ["cell", "web\\ one"]),
        ("jls|-nqj|ce", ["cell"]),
        ("jls|name|host.hostn", ["host.hostname"]),
        ("jls|dyi", ["dying"]),
        ("jls|exec", []),
        ("jls|--libxo|j", ["json", "json,pretty"]),
        ("jls|--libxo|=|x", ["xml", "xml,pretty"]),
        ("jls|--libxo=t", ["--libxo=text"]),
        ("jls|--l", ["--libxo"]),
        ("jexec|c", ["cell"]),
        ("jexec|-l|-U|root|c", ["cell"]),
        ("jexec|-u|roo", ["root"]),
        ("jexec|cell|chgr", ["chgrp"]),
        ("jexec|cell|ls|/etc/debian_v", ["/etc/debian_version"]),
        ("jexec|cell|ls|-", []),
        ("ipnat|-f|/etc/debian_v", ["/etc/debian_version"]),
        ("ipnat|-C|/etc/debian_v", ["/etc/debian_version"]),
        ("rctl|-", ["-a", "-h", "-l", "-n", "-r", "-u"]),
        ("rctl|-a|ja", ["jail:"]),
        ("rctl|-a|jail|:|c", ["cell:"]),
        ("rctl|jail|:|cell|:|memoryu", ["memoryuse:"]),
        (
            "rctl|-a|jail|:|cell|:|maxproc|:|",
            ["deny=", "log=", "sighup=", "sigkill=", "sigstop=", "sigterm=", "sigxcpu=", "throttle="],
        ),
        ("jailctl|boot", ["bootstrap"]),
        ("jailctl|sh", []),
        ("jailctl|bootstrap|--no", ["--no-cache"]),
        ("jailctl|ps|-J|c", ["cell"]),
        ("jailctl|cp|-r|ce", ["cell:"]),
        ("jailctl|cp|--max-f", ["--max-files"]),
        ("jailctl|export|ce", ["cell"]),
        ("jailctl|console|ce", ["cell"]),
        ("jailctl|top|ce", ["cell"]),
        ("jailctl|logs|-f|ce", ["cell"]),
        ("jailctl|audit|c", ["cell"]),
        ("jailctl|cp|-", ["--max-files", "--max-size", "-L", "-a", "-r"]),
        ("jailctl|sockstat|-4", ["-4"]),
        ("jailctl|signal|-", ["-s"]),
        ("jailctl|log|", ["cell", "key", "verify", "web\\ one"]),
        ("jailctl|log|verify|ce", ["cell"]),
        ("jailctl|rdr|", ["add", "clear", "del", "list"]),
        ("jailctl|rdr|add|ce", ["cell"]),
        ("jailctl|egress|l", ["list"]),
    ],
)
def test_bash(place: Path, words: str, offered: list[str]) -> None:
    assert _bash(place, *words.split("|")) == offered


@pytest.mark.parametrize("shell", sorted(FILES))
def test_syntax(shell: str) -> None:
    _needs(shell)
    assert subprocess.run([shell, "-n", FILES[shell]], stdin=subprocess.DEVNULL).returncode == 0


@pytest.fixture
def zsh(place: Path, tmp_path: Path) -> Iterator[Zsh]:
    _needs("zsh")
    made = Zsh(tmp_path, f"{place}/bin:/usr/bin:/bin", f"fpath=( {place} $fpath )")
    yield made
    made.close()


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("jail -r d", "jail -r dns "),
        ("jail -r we", "jail -r web\\ one "),
        ("jail -r tw", "jail -r two\\ words "),
        ("jail -R cel", "jail -R cell "),
        ("jail -f other -c t", "jail -f other -c third "),
        ("jail -c pers", "jail -c persist "),
        ("jail -c noper", "jail -c nopersist "),
        ("jail -c exec.prestar", "jail -c exec.prestart="),
        ("jail -c name=x allow.mount.notm", "jail -c name=x allow.mount.notmpfs "),
        ("jail -c name=ce", "jail -c name=cell "),
        ("jail -c ip4=inh", "jail -c ip4=inherit "),
        ("jail -c path=/us", "jail -c path=/usr/"),
        ("jail --pl", "jail --plan "),
        ("jls -nj ce", "jls -nj cell "),
        ("jls jid host.hostn", "jls jid host.hostname "),
        ("jls --libxo=te", "jls --libxo=text "),
        ("jexec -l ce", "jexec -l cell "),
        ("jexec cell chgr", "jexec cell chgrp "),
        ("rctl -a ja", "rctl -a jail:"),
        ("rctl -a jail:c", "rctl -a jail:cell:"),
        ("rctl jail:cell:memoryu", "rctl jail:cell:memoryuse:"),
        ("jailctl boot", "jailctl bootstrap "),
        ("jailctl bootstrap --no", "jailctl bootstrap --no-cache "),
        ("jailctl ps -J ce", "jailctl ps -J cell "),
        ("jailctl cp --max-s", "jailctl cp --max-size "),
        ("jailctl cp -L", "jailctl cp -L "),
        ("jailctl log ver", "jailctl log verify "),
        ("jailctl rdr cl", "jailctl rdr clear "),
        ("jailctl rdr add ce", "jailctl rdr add cell "),
    ],
)
def test_zsh(zsh: Zsh, typed: str, line: str) -> None:
    assert zsh.complete(typed) == line


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("jail -r ", {"cell", "conf", "dns", "two words", "web one"}),
        ("jail -R ", {"cell", "web one"}),
        ("jail -f other -c t", {"third"}),
        ("jail -c pers", {"persist"}),
        ("jail -c nopers", {"nopersist"}),
        ("jail -c allow.mount.notm", {"allow.mount.notmpfs"}),
        ("jail -c ip4=", {"ip4=", "ip4=disable", "ip4=inherit", "ip4=new"}),
        ("jail -m name=c", {"name=cell"}),
        ("jail -u roo", {"root"}),
        ("jail --pl", {"--plan"}),
        ("jls -j ", {"cell", "web one"}),
        ("jls host.hostn", {"host.hostname"}),
        ("jls --libxo=t", {"--libxo=text"}),
        ("jexec -l c", {"cell"}),
        ("jexec cell chgr", {"chgrp"}),
        ("ipnat -f /etc/debian_v", {"/etc/debian_version"}),
        ("rctl -a ja", {"jail:"}),
        ("rctl -a jail:cell:maxproc:de", {"jail:cell:maxproc:deny="}),
        ("jailctl boot", {"bootstrap"}),
        ("jailctl bootstrap --no", {"--no-cache"}),
        ("jailctl cp -", {"--max-files", "--max-size", "-L", "-a", "-r"}),
        ("jailctl log ke", {"key"}),
        ("jailctl rdr ", {"--json", "add", "clear", "del", "list"}),
        ("jailctl rdr add ce", {"cell"}),
    ],
)
def test_fish(place: Path, tmp_path: Path, typed: str, offered: set[str]) -> None:
    _needs("fish")
    script = f"source {place}/jailng.fish; complete -C '{typed}'"
    environment = {"PATH": f"{place}/bin:/usr/bin:/bin", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    argv = ["fish", "--no-config", "-c", script]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (0, "")
    assert {line.partition("\t")[0] for line in done.stdout.splitlines()} == offered
