"""`service jail`: its settings, which file serves which jail, what jail(8) is asked for, and what is said of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from jailng.cli import jailctl
from jailng.ctl import rc, rcconf, rcjail, rcobsolete
from jailng.ctl.rcconf import Settings
from jailng.errors import JailError


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """/etc and /run of a host, with programs that write down how they are called beside them."""
    for name in ("etc/jail.conf.d", "run", "sbin"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(rcjail, "ETC", tmp_path / "etc")
    for module in (rcjail, rc):
        monkeypatch.setattr(module, "RUN", tmp_path / "run")
    monkeypatch.setattr(rcconf, "FILE", tmp_path / "etc/default")
    monkeypatch.setitem(rcconf._DEFAULTS, "jail_conf", str(tmp_path / "etc/jail.conf"))
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "sbin/jailctl")])
    program(tmp_path, "jls", f"cat {tmp_path}/running 2>/dev/null; true")
    program(tmp_path, "jail", f'echo "$@" >>{tmp_path}/asked')
    return tmp_path


def program(host: Path, name: str, text: str) -> None:
    (host / "sbin" / name).write_text(f"#!/bin/sh\n{text}\n")
    (host / "sbin" / name).chmod(0o755)


def asked(host: Path) -> str:
    """What jail(8) was called with since the last time, the host's directory being HERE."""
    file = host / "asked"
    found = file.read_text().replace(str(host), "HERE") if file.exists() else ""
    file.unlink(missing_ok=True)
    return found


# Settings.


def test_settings_are_a_script(host: Path) -> None:
    rcconf.FILE.write_text('first=a\njail_list="$first b"\njail_list="$jail_list c"\necho said\njail_enable=on # yes\n')
    settings = rcconf.read()
    assert settings.words("jail_list") == ["a", "b", "c"]
    assert settings.yes("jail_enable")
    assert not settings.yes("jail_reverse_stop")
    assert settings.text("jail_nothing") == ""


def test_settings_that_are_no_script(host: Path) -> None:
    rcconf.FILE.write_text('jail_list="a\n')
    with pytest.raises(JailError, match=r"etc/default: .*Unterminated quoted string"):
        rcconf.read()


def test_where_commands_on_the_host_are_found(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At boot nobody else says so: with /usr/lib/jailng/shims first they are FreeBSD's."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    program(host, "jail", f'echo "$PATH" >{host}/asked')
    rcconf.FILE.write_text('jail_enable=YES\nPATH="/usr/lib/jailng/shims:$PATH"\n')
    assert rc.main(["start"]) == 0
    assert asked(host) == "/usr/lib/jailng/shims:/usr/bin:/bin\n"


@pytest.mark.parametrize(
    ("value", "yes"), [("YES", True), ("true", True), ("On", True), ("1", True), ("NO", False), ("off", False)]
)
def test_yes_and_no(value: str, yes: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert Settings({"jail_enable": value}).yes("jail_enable") is yes
    assert capsys.readouterr().err == ""


def test_neither_yes_nor_no(capsys: pytest.CaptureFixture[str]) -> None:
    assert not Settings({"jail_enable": "perhaps"}).yes("jail_enable")
    assert capsys.readouterr().err == "/etc/init.d/jail: WARNING: $jail_enable is not set properly - see rc.conf(5).\n"


def test_enable_leaves_the_rest_of_the_file(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rcconf.FILE.write_text('# jail_enable="YES"\n jail_enable=NO\njail_list="a"')
    assert rc.main(["enable"]) == 0
    assert rcconf.FILE.read_text() == '# jail_enable="YES"\njail_enable="YES"\njail_list="a"\n'
    assert rc.main(["enabled"]) == 0
    assert rc.main(["disable"]) == 0
    assert rc.main(["enabled"]) == 1
    rcconf.FILE.write_text('jail_list="a"')
    rc.main(["enable"])
    assert rcconf.FILE.read_text() == 'jail_list="a"\njail_enable="YES"\n'


# Which file.


@pytest.mark.parametrize(
    ("files", "settings", "found"),
    [
        (("jail.conf",), {}, "jail.conf"),
        (("jail.conf", "jail.conf.d/a_b.conf"), {}, "jail.conf.d/a_b.conf"),
        (("jail.conf", "jail.conf.d/a_b.conf", "jail.a_b.conf"), {}, "jail.a_b.conf"),
        (("jail.conf", "other", "jail.a_b.conf"), {"jail_a_b_conf": "HERE/other"}, "other"),
        (("jail.conf", "jail.conf.d/b.conf"), {}, "jail.conf"),
        (("other",), {"jail_conf": "HERE/other"}, "other"),
    ],
)
def test_which_file_serves_a_jail(host: Path, files: tuple[str, ...], settings: dict[str, str], found: str) -> None:
    for name in files:
        (host / "etc" / name).touch()
    given = {name: value.replace("HERE", str(host / "etc")) for name, value in settings.items()}
    target = rcjail.Target(Settings(given), "a.b")
    assert (target.name, target.file) == ("a_b", host / "etc" / found)


@pytest.mark.parametrize("directory", ["HERE/etc/", "", "./", "../etc/"])
@pytest.mark.parametrize("quote", ['"', "'", ""])
def test_a_file_that_is_included_is_read_as_part_of_the_other(host: Path, quote: str, directory: str) -> None:
    """However it is named: jail.conf(5) has an example that does it by a relative path."""
    (host / "etc/jail.conf.d/a.conf").touch()
    named = directory.replace("HERE", str(host)) + "jail.conf.d/*.conf"
    (host / "etc/jail.conf").write_text(f"x;\n  .include {quote}{named}{quote};\n")
    assert rcjail.Target(Settings({}), "a").file == host / "etc/jail.conf"


def test_nobody_else_may_write_what_root_executes(host: Path) -> None:
    """Whatever the umask; and who may read it is for the administrator to say."""
    before = os.umask(0)
    try:
        rcconf.write("jail_enable", "YES")
        made = rcconf.FILE.stat().st_mode & 0o777
        rcconf.FILE.chmod(0o600)
        rcconf.write("jail_enable", "NO")
        written = rcobsolete.Obsolete(Settings(_OLD), "www", "www").write(host / "run")
    finally:
        os.umask(before)
    assert (made, rcconf.FILE.stat().st_mode & 0o777, written.stat().st_mode & 0o777) == (0o644, 0o600, 0o644)


def test_no_file(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rc.main(["onestart", "a"]) == 1
    told = capsys.readouterr()
    assert told.out == "Starting jails:.\n"
    assert told.err == (
        "/etc/init.d/jail: WARNING: Invalid configuration for a  (no jail.conf, no hostname, or no path).   "
        "Jail a was ignored.\n"
    )
    assert asked(host) == ""


# What jail(8) is asked for.


def test_start_and_stop_of_all(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (host / "etc/jail.b.conf").touch()
    (host / "running").write_text("1 a\n7 b\n8 b.c\n")
    rcconf.FILE.write_text("jail_enable=YES\njail_flags=-v\n")
    assert rc.main(["start"]) == 0
    assert asked(host) == "-v -f HERE/etc/jail.conf -c -p1\n"
    assert {path.name: path.read_text() for path in (host / "run").iterdir()} == {
        "jail_a.id": "1\n",
        "jail_b.id": "7\n",
        "jail_b.c.id": "8\n",
    }
    program(host, "jail", f'echo "$@" >>{host}/asked; : >{host}/running')
    rcconf.FILE.write_text("jail_enable=YES\njail_reverse_stop=YES\njail_parallel_start=YES\n")
    assert rc.main(["stop"]) == 0
    assert asked(host) == ("-f HERE/etc/jail.conf -r b.c\n-f HERE/etc/jail.b.conf -r b\n-f HERE/etc/jail.conf -r a\n")
    assert list((host / "run").iterdir()) == []
    assert rc.main(["start"]) == 0
    assert asked(host) == "-f HERE/etc/jail.conf -c\n"
    assert capsys.readouterr().out == "Starting jails: a b b.c.\nStopping jails: b.c b a.\nStarting jails:.\n"


def test_names_and_jail_list(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (host / "etc/jail.conf").touch()
    (host / "running").write_text("1 a\n2 b\n")
    rcconf.FILE.write_text("jail_enable=YES\njail_list='b a'\njail_reverse_stop=YES\njail_b_flags=-q\n")
    assert rc.main(["start"]) == 0
    assert asked(host) == "-q -i -f HERE/etc/jail.conf -c b\n-i -f HERE/etc/jail.conf -c a\n"
    assert rc.main(["start", "", "a"]) == 0
    assert asked(host) == "-i -f HERE/etc/jail.conf -c a\n"
    assert rc.main(["stop"]) == 1  # they still run
    assert asked(host) == "-q -f HERE/etc/jail.conf -r a\n-q -f HERE/etc/jail.conf -r b\n"
    assert rc.main(["stop", "b", "a", "c"]) == 1  # as they are named; c does not run
    assert asked(host) == "-q -f HERE/etc/jail.conf -r b\n-q -f HERE/etc/jail.conf -r a\n"
    starts, stops = "Starting jails: b a.\nStarting jails: a.\n", "Stopping jails: a b.\nStopping jails: b a.\n"
    assert capsys.readouterr().out == starts + stops


def test_what_is_said_of_failures(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (host / "etc/jail.conf").touch()
    (host / "running").write_text("1 a\n")
    program(host, "jail", "echo out; echo err >&2; exit 1")
    assert rc.main(["onestart"]) == 1
    assert rc.main(["onestart", "a", "b"]) == 1
    assert rc.main(["onestop", "a"]) == 1
    one = ' cannot start jail  "{}": \nout\nerr\n'
    assert capsys.readouterr().out == (
        f"Starting jails:out\nerr\n.\nStarting jails:{one.format('a')}{one.format('b')}.\n"
        "Stopping jails: aout\nerr\n.\n"
    )


def test_what_a_jail_says_steers_no_terminal(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its /etc/rc has failed; and of what it has said by then there is no end."""
    (host / "etc/jail.conf").touch()
    program(host, "jail", r"printf 'a\033]0;owned\007\r\nb\342\200\256\302\233\233\tc\n'; exit 1")
    assert rc.main(["onestart"]) == 1
    assert rc.main(["onestart", "a"]) == 1
    said = "a\\x1b]0;owned\\x07\nb\\u202e\\x9b\\x9b\tc\n"
    started = f'Starting jails:{said}.\nStarting jails: cannot start jail  "a": \n{said}.\n'
    assert capsys.readouterr().out == started
    program(host, "jail", "head -c 1000000 /dev/zero | tr '\\0' '\\n'; echo the end; exit 1")
    assert rc.main(["onestart"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("Starting jails:[...]\n")
    assert out.endswith("the end\n.\n")
    assert len(out) < 100_000


@pytest.mark.parametrize("words", [["a"], ["b", "a"]])
def test_what_has_no_end_is_not_kept(host: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """The host's memory is not a jail's to fill; also while another is waited for."""
    (host / "etc/jail.conf").touch()
    os.mkfifo(host / "over")
    much = "head -c 3000000 /dev/zero | tr '\\0' x; echo"
    wait = "while [ $(stat -L -c %s /proc/$$/fd/1) -gt 2000000 ] && [ $((n += 1)) -lt 600 ]; do sleep 0.05; done"
    told = "stat -L -c %s /proc/$$/fd/1"
    over = f"echo >{host}/over" if len(words) > 1 else ":"
    program(host, "jail", f"case $5 in b) read x <{host}/over;; a) {much}; {wait}; {told}; {over}; exit 1;; esac")
    rcconf.FILE.write_text("jail_parallel_start=YES\n")
    assert rc.main(["onestart", *words]) == 1
    out = capsys.readouterr().out
    assert int(out.splitlines()[-2]) < 1_000_000
    assert len(out) < 100_000


def test_no_disk_is_needed(host: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Else no jail was stopped, before the machine stops, say, where that was full."""
    (host / "etc/jail.conf").touch()
    monkeypatch.setattr("tempfile.tempdir", str(host / "nowhere"))
    assert rc.main(["onestart", "a"]) == 0
    assert capsys.readouterr().out == "Starting jails: a.\n"


def test_a_name_that_no_file_can_have(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The root of a jail names those in it: the others are started and stopped all the same."""
    (host / "etc/jail.conf").touch()
    name = f"b.{'x' * 253}"
    (host / "running").write_text(f"1 a\n2 b\n3 {name}\n4 c\n")
    assert rc.main(["onestart"]) == 0
    assert sorted(os.listdir(host / "run")) == ["jail_a.id", "jail_b.id", "jail_c.id"]
    program(host, "jail", f'sed -i "/ $5$/d" {host}/running; sed -i "/ $4$/d" {host}/running')
    assert rc.main(["onestop"]) == 0
    assert os.listdir(host / "run") == []
    told = capsys.readouterr()
    assert told.out == f"Starting jails: a b {name} c.\nStopping jails: a b {name} c.\n"
    assert told.err.count(": File name too long\n") == 2


def test_several_are_started_side_by_side(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each waits for the other."""
    (host / "etc/jail.conf").touch()
    for name in ("a", "b"):
        os.mkfifo(host / name)
    program(
        host, "jail", f"case $5 in a) echo >{host}/a; read x <{host}/b;; b) read x <{host}/a; echo >{host}/b;; esac"
    )
    rcconf.FILE.write_text("jail_parallel_start=YES\n")
    assert rc.main(["onestart", "a", "b"]) == 0
    assert capsys.readouterr().out == "Starting jails: a b.\n"


def test_of_several_side_by_side_one_depends_on_another(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who comes second to what both start is told that it exists: it did not start, or did and was said not to."""
    (host / "etc/jail.conf").touch()
    exists = "echo 'jail: a: jail \"a\" already exists'; exit 1"
    again = f"[ -e {host}/second ] && echo 2 b >>{host}/running || {{ : >{host}/second; {exists}; }}"
    program(host, "jail", f"case $5 in a) echo 1 a >>{host}/running; {exists};; b) {again};; c) {exists};; esac")
    (host / "running").write_text("3 c\n")
    rcconf.FILE.write_text("jail_parallel_start=YES\n")
    assert rc.main(["onestart", "b", "a"]) == 0
    assert rc.main(["onestart", "c"]) == 1
    told = 'Starting jails: b a.\nStarting jails: cannot start jail  "c": \njail: a: jail "a" already exists\n.\n'
    assert capsys.readouterr().out == told


def test_of_several_in_turn_one_is_started_by_another(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """jail_list="b a", where b depends on a: all run, and so the unit has not failed."""
    (host / "etc/jail.conf").touch()
    started = f"printf '1 a\\n2 b\\n' >{host}/running"
    program(host, "jail", f"case $5 in b) {started};; *) echo 'jail: a: jail \"a\" already exists'; exit 1;; esac")
    assert rc.main(["onestart", "b", "a"]) == 0
    assert capsys.readouterr().out == "Starting jails: b a.\n"
    assert rc.main(["onestart", "a"]) == 1


def test_a_jail_that_keeps_its_output_open_is_not_waited_for(host: Path) -> None:
    (host / "etc/jail.conf").touch()
    os.mkfifo(host / "end")
    program(host, "jail", f"read x <{host}/end & exit 0")
    assert rc.main(["onestart", "a"]) == 0
    (host / "end").write_text("\n")


# What jail_enable=NO forbids, and other directives.


@pytest.mark.parametrize(("prefix", "told"), [("", True), ("fast", False), ("quiet", False)])
def test_not_enabled(host: Path, capsys: pytest.CaptureFixture[str], prefix: str, told: bool) -> None:
    assert rc.main([f"{prefix}start"]) == 0
    sentence = f"Cannot 'start' jail. Set jail_enable to YES in {rcconf.FILE} or use 'onestart' instead of 'start'.\n"
    assert capsys.readouterr().out == sentence * told
    assert asked(host) == ""


@pytest.mark.parametrize("prefix", ["one", "force"])
def test_all_the_same(host: Path, prefix: str) -> None:
    assert rc.main([f"{prefix}start"]) == 0
    assert asked(host) == "-f HERE/etc/jail.conf -c -p1\n"


def test_others(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rc.main(["rcvar"]) == 0
    assert rc.main(["describe"]) == 0
    assert rc.main(["oneextracommands"]) == 0
    assert rc.main(["oneconfig"]) == 0
    assert rc.main(["oneconsole"]) == 3
    told = capsys.readouterr()
    assert told.out == (
        '# jail : Manage system jails\n#\njail_enable="NO"\n#   (default: "NO")\n\nManage system jails\n'
        "config console status\n"
    )
    assert told.err == "/etc/init.d/jail: ERROR: Specify a jail name.\n"


@pytest.mark.parametrize("words", [[], [""], ["onego"], ["force"]])
def test_usage(host: Path, words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert jailctl.main(["rc", *words]) == 1
    err = capfd.readouterr().err
    assert err.endswith(
        "Usage: /etc/init.d/jail [fast|force|one|quiet](start|stop|restart|rcvar|enable|disable|enabled|describe|"
        "extracommands|config|console|status)\n"
    )
    if words == ["onego"]:
        assert err.startswith("/etc/init.d/jail: unknown directive 'go'.\n")


def test_force_reload_is_a_restart_as_debian_has_it(host: Path) -> None:
    rcconf.FILE.write_text("jail_enable=YES\n")
    assert rc.main(["force-reload"]) == 0
    assert asked(host) == "-f HERE/etc/jail.conf -c -p1\n"


# Variables in place of jail.conf(5).

_OLD = {
    "jail_www_rootdir": "/jail/www",
    "jail_www_hostname": "www.example.org",
    "jail_www_ip": "ep0|192.0.2.1,192.0.2.2/255.255.255.0",
    "jail_www_ip_multi0": "2001:db8::1/64",
    "jail_interface": "ep1",
    "jail_www_exec_prestart0": 'echo "$HOME"',
    "jail_exec_prestart1": "true",
    "jail_www_exec_afterstart1": "later",
    "jail_www_devfs_enable": "YES",
    "jail_devfs_ruleset": "4",
    "jail_set_hostname_allow": "YES",
    "jail_www_parameters": "children.max=2; persist;",
}
_NEW = r"""www {
	host.hostname = "www.example.org";
	path = "/jail/www";
	interface = "ep1";
	ip4.addr += "ep0|192.0.2.1/32";
	ip4.addr += "ep1|192.0.2.2 netmask 255.255.255.0";
	ip6.addr += "ep1|2001:db8::1/64";
	allow.raw_sockets = 0;
	exec.clean;
	exec.system_user = "root";
	exec.jail_user = "root";
	exec.prestart += "echo \"\$HOME\"";
	exec.prestart += "true";
	exec.start += "/bin/sh /etc/rc";
	exec.start += "later";
	exec.stop = "/bin/sh /etc/rc.shutdown jail";
	exec.consolelog = "/var/log/jail_www_console.log";
	mount.devfs;
	devfs_ruleset = "4";
	allow.set_hostname = 1;
	allow.sysvipc = 0;
	enforce_statfs = "2";
	children.max=2;
	persist;
}
"""


def test_a_jail_of_variables() -> None:
    head, _, text = rcobsolete.Obsolete(Settings(_OLD), "www", "www").text().partition("\n")
    assert head.startswith("# Generated by /etc/init.d/jail at ")
    assert text == _NEW


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        ({"jail_a_exec": "/bin/run"}, ['exec.start += "/bin/run";']),
        ({"jail_a_exec_start": "/bin/run"}, ['exec.start += "/bin/run";']),
        (
            {"jail_a_exec_start": "/bin/run", "jail_a_exec_stop": "/bin/end"},
            ['exec.start += "/bin/run";', 'exec.stop = "/bin/end";'],
        ),
    ],
)
def test_commands_of_variables(given: dict[str, str], lines: list[str]) -> None:
    text = rcobsolete.Obsolete(Settings(given), "a", "a").text()
    assert [line.strip() for line in text.splitlines() if "exec.st" in line] == lines


def test_a_jail_of_variables_is_started_and_warned_of(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (host / "etc/jail.conf").touch()
    rcconf.FILE.write_text("".join(f"{name}='{value}'\n" for name, value in _OLD.items()) + "jail_enable=YES\n")
    assert rc.main(["start", "www"]) == 0
    assert asked(host) == "-i -f HERE/run/jail.www.conf -c www\n"
    assert (host / "run/jail.www.conf").read_text().partition("\n")[2] == _NEW
    told = capsys.readouterr()
    assert told.out == "Starting jails: www.example.org.\n"
    assert told.err.replace(str(host), "HERE") == (
        "/etc/init.d/jail: WARNING: HERE/run/jail.www.conf is created and used for jail www.\n"
        "/etc/init.d/jail: WARNING: Per-jail configuration via jail_* variables  is obsolete.  "
        "Please consider migrating to HERE/etc/jail.conf.\n"
    )
