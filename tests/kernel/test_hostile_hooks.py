"""What the host executes or believes for a jail: nothing that lies in a jail's tree, or that others can write."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Command


@pytest.fixture
def tree(small_root: Path) -> Path:
    """A root with a program of the enemy's in it, which leaves a mark on the host."""
    mark = small_root.parent / "mark"
    (small_root / "bin/x").write_text(f"#!/bin/sh\necho run > {mark}\n")
    (small_root / "bin/x").chmod(0o755)
    (small_root / "parts").mkdir()
    (small_root / "parts/x").symlink_to("../bin/x")
    (small_root / "out").symlink_to("/bin/true")
    (small_root.parent / "link").symlink_to(small_root / "bin/x")
    host = small_root.parent / "host"
    host.write_text(f"#!{small_root}/bin/x\n")
    host.chmod(0o755)
    return small_root


HOOKS = (
    "exec.prepare",
    "exec.prestart",
    "exec.created",
    "exec.poststart",
    "exec.prestop",
    "exec.poststop",
    "exec.release",
)


@pytest.mark.parametrize("hook", HOOKS)
def test_no_hook_executes_what_is_in_the_tree(jail: Command, tree: Path, hook: str) -> None:
    made = jail("-c", "name=x", "persist", f"path={tree}", f"{hook}={tree}/bin/x")
    stops = hook in HOOKS[4:]
    if stops:
        assert made.returncode == 0, made.stderr
        config = tree.parent / "jail.conf"
        config.write_text(f'x {{ path = "{tree}"; {hook} = "{tree}/bin/x"; persist; }}')
        made = jail("-f", str(config), "-r", "x")
        jail("-R", "x")
    assert made.returncode == 1
    why = "in the tree of jail x, whose root decides what it does (or set ng.lenient)"
    assert made.stderr == f"jail: {'x: ' if stops else ''}{hook}: {tree}/bin/x: {why}\n"
    assert not (tree.parent / "mark").exists()


SHAPES = (
    "$T/bin/x", "$L", "$H", "$T/out", "cd $T && ./bin/x", "sh $T/bin/x", "sh -c '. $T/bin/x'", "$JPATH/bin/x; true",
    "chroot $T /bin/x", "env A=b timeout 5 $T/bin/x", "echo `$T/bin/x`", "PATH=$T/bin; x", "$T/bin/x &",
    "if true; then $T/../root/bin/x; fi", "sh < $T/bin/x", "$T/b?n/x; true", "sh $T/bin/*",
    "env LD_PRELOAD=$T/bin/x true", "export PYTHONPATH=$T/bin; true", "find $T/bin -name x -exec {} +", "make -C $T",
    "find $T/bin/x -exec {} \\;", "find $T -name x -exec sh {} +", "env -C $T/bin ./x", "env PATH=$T/bin x",
    "$P/*/bin/x; true", "setarch x86_64 $T/bin/x", "sh -c -e $T/bin/x", "script -c $T/bin/x /dev/null",
    "trap $T/bin/x 0;", "cd $T && python3 -c 1", "flock $L.lock -c '$T/bin/x y'", "runuser --command='$T/bin/x y' root",
    "/usr/bin/time $T/bin/x", "start-stop-daemon --start --exec=$T/bin/x", "run-parts $T/parts", "useradd -R $T bob",
    "passwd --root $T root", "chpasswd --root=$T", "ip netns exec test $T/bin/x", "make --directory $T",
    "cd $T && make", "git -C $T/bin pull", "start-stop-daemon --chroot $T -S -x /bin/x", "dpkg --root=$T -i x.deb",
    "crontab $T/bin/x",
)  # fmt: skip


def test_by_whatever_words(jail: Command, tree: Path) -> None:
    """A link of the host's into the tree, one of the tree's out of it, an interpreter, a script, a directory."""
    (tree.parent / "root").symlink_to(tree.name)
    for shape in SHAPES:
        line = shape.replace("$T", str(tree)).replace("$L", f"{tree.parent}/link").replace("$H", f"{tree.parent}/host")
        line = line.replace("$P", str(tree.parent))
        made = jail("-c", "name=x", f"path={tree}", f"exec.prestart={line}", "command=/bin/true")
        assert made.returncode == 1 and ": in the tree of jail x, whose root" in made.stderr, (shape, made)
        assert not (tree.parent / "mark").exists(), shape


def test_the_tree_of_another_jail(jail: Command, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "other/bin").mkdir(parents=True)
    assert jail("-c", "name=y", "persist", f"path={tree}").returncode == 0
    try:
        made = jail("-c", "name=x", "persist", f"path={tmp_path}/other", f"exec.prestart={tree}/bin/x")
        assert made.returncode == 1 and "in the tree of jail y" in made.stderr, made
    finally:
        jail("-R", "y")


@pytest.mark.parametrize("whose", ["its own", "another's", "a configured one's"])
def test_what_is_mounted_to_be_written_to(jail: Command, tree: Path, etc: Path, tmp_path: Path, whose: str) -> None:
    """A directory of the host's, by its own path: what is in there a jail's root has written."""
    (tree / "mnt").mkdir()
    (tmp_path / "other").mkdir()
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "x").write_bytes((tree / "bin/x").read_bytes())
    (shared / "x").chmod(0o755)
    mounted = f"{shared} {tree}/mnt nullfs rw"
    hook = f"exec.prepare={shared}/x"
    start = ["-c", "name=x", "persist", f"path={tmp_path}/other", hook]
    if whose == "its own":
        start = ["-c", "name=x", "persist", f"path={tree}", f"mount={mounted}", hook]
    elif whose == "another's":
        assert jail("-c", "name=y", "persist", f"path={tree}", f"mount={mounted}").returncode == 0
    else:
        (etc / "jail.conf").write_text(f'y {{ path = "{tree}"; mount = "{mounted}"; }}')
    made = jail(*start)
    jail("-r", "y")
    name = "x" if whose == "its own" else "y"
    assert made.returncode == 1 and f"in the tree of jail {name}, whose root" in made.stderr, made
    assert not (tree.parent / "mark").exists()


@pytest.mark.parametrize("file", ["jail.conf", "jail.z.conf", "jail.conf.d/z.conf"])
def test_the_tree_of_a_configured_jail(jail: Command, tree: Path, etc: Path, tmp_path: Path, file: str) -> None:
    """Also of one that service(8) alone knows, by a file of its own."""
    (tmp_path / "other").mkdir()
    (etc / file).parent.mkdir(exist_ok=True)
    (etc / file).write_text(f'z {{ path = "{tree}"; }}')
    made = jail("-c", "name=x", "persist", f"path={tmp_path}/other", f"exec.prestart={tree}/bin/x")
    assert made.returncode == 1 and "in the tree of jail z" in made.stderr, made


def test_a_root_in_a_tree_leads_nowhere_else(jail: Command, tree: Path, tmp_path: Path) -> None:
    """Root of a jail puts a link where the root of a jail in it was: what that leads to stays the host's."""
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks/x").write_text("#!/bin/sh\necho run\n")
    (tmp_path / "hooks/x").chmod(0o755)
    shutil.copytree(tree, tree / "in")
    config = tmp_path / "hooks/jail.conf"
    config.write_text(f'z {{ path = /; exec.prestart = "{tmp_path}/hooks/x"; command = /bin/true; }}')
    for name, path in (("x", tree), ("x.y", tree / "in")):
        made = jail(
            "-c", f"name={name}", f"path={path}", "persist", "children.max=1" if name == "x" else "allow.mlock=0"
        )
        assert made.returncode == 0, made.stderr
    try:
        (tree / "in").rename(tree / "moved")
        (tree / "in").symlink_to(tmp_path / "hooks")
        made = jail("-f", str(config), "-c", "z")
        assert made.returncode == 0 and made.stdout.startswith("run\n"), made
        made = jail("-c", "name=z", "path=/", f"exec.prestart={tree}/moved/bin/x", "command=/bin/true")
        assert made.returncode == 1 and "in the tree of jail x" in made.stderr, made
    finally:
        jail("-R", "x")


def test_what_is_no_program_of_the_tree_is_allowed(jail: Command, tree: Path) -> None:
    """Hooks read and write files below the root, as they always did; and who says so runs the enemy's program."""
    line = f"mkdir -p {tree}/run && cp {tree}/bin/x {tree}/run/ && sed -i s/echo/true/ {tree}/run/x"
    made = jail("-c", "name=x", f"path={tree}", f"exec.prestart={line}", "command=/bin/true")
    assert (made.returncode, made.stderr) == (0, ""), made
    made = jail("-c", "name=x", f"path={tree}", "ng.lenient", f"exec.prestart={tree}/bin/x", "command=/bin/true")
    assert made.returncode == 0 and "in the tree of jail x" in made.stderr, made
    assert (tree.parent / "mark").exists()


WORK = (
    "cp $P/new $T/etc/file", "cp $P/new $T/lib/out/", "cp $P/new $T/lib/out", "echo x > $T/etc/file",
    "true; : >>$T/etc/file", "rm -rf $T/lib/out/*", "rm $T/lib/out/file", "mkdir -p $T/lib/out/new",
    "cd $T/lib && touch out/file", "chown 1001 $T/etc/file", "mount -t tmpfs none $T/lib/out",
    "find $T/lib/out/ -delete", "ln -s /x $T/lib/out", "mv $P/new $T/lib/out", "tar -C $T/lib/out -cf /dev/null .",
    "sh -c 'cd $T/lib/out; echo x > file'", "cp $P/new $L/etc/file", "cp $P/new $T/../root/etc/file",
    "timeout 5 cp $P/new $T/etc/file", "dd if=/dev/null of=$T/etc/file",
)  # fmt: skip


def test_what_a_link_makes_the_hosts(jail: Command, tree: Path) -> None:
    """What a hook writes in the tree is not what its root has made of that path: a file of the host's."""
    host = tree.parent / "files"
    host.mkdir()
    (host / "file").write_text("of the host")
    (tree.parent / "new").write_text("new")
    (tree.parent / "root").symlink_to(tree.name)
    (tree / "etc/file").symlink_to(host / "file")
    (tree / "lib").mkdir(exist_ok=True)
    (tree / "lib/out").symlink_to(f"../../{host.name}")
    before = [(path.name, path.stat().st_uid, path.read_text()) for path in host.iterdir()]
    for shape in WORK:
        line = shape.replace("$T", str(tree)).replace("$P", str(tree.parent)).replace("$L", f"{tree.parent}/root")
        made = jail("-c", "name=x", f"path={tree}", f"exec.prestart={line}", "command=/bin/true")
        assert made.returncode == 1 and ": a link in the tree of jail x leads out of that" in made.stderr, (shape, made)
        assert [(path.name, path.stat().st_uid, path.read_text()) for path in host.iterdir()] == before, shape
    made = jail("-c", "name=x", f"path={tree}", "ng.lenient", f"exec.prestart=cp {tree}/bin/x {tree}/etc/file",
                "command=/bin/true")  # fmt: skip
    assert made.returncode == 0 and "leads out of that" in made.stderr, made


def test_links_that_stay_are_followed(jail: Command, tree: Path) -> None:
    """Or are not, by the program that finds one."""
    (tree / "etc/file").symlink_to("/nonexistent/of/the/host")
    (tree / "within").symlink_to("tmp")
    line = (
        f"touch {tree}/within/a && cp {tree}/bin/x {tree}/within/ && rm {tree}/etc/file && ln -s /run {tree}/etc/file"
        f" && ln -sfn /run {tree}/etc/file && mv {tree}/within/x {tree}/within/../tmp/y && echo {tree}/etc/file"
        f" && cp --remove-destination {tree}/bin/x {tree}/etc/file && ls {tree}/parts/x > {tree}/within/z"
        f" && touch {tree}/../marker {tree}/../{tree.name}/tmp/w"
    )
    made = jail("-c", "name=x", f"path={tree}", f"exec.prestart={line}", "command=/bin/true")
    assert (made.returncode, made.stderr) == (0, ""), made
    assert (tree.parent / "marker").exists()
    assert {"a", "w", "y", "z"} <= {path.name for path in (tree / "tmp").iterdir()}


def test_what_others_can_exchange_is_executed_as_it_was_found(jail: Command, tree: Path) -> None:
    """By descriptor; the environment and the words are as ever."""
    loose = tree.parent / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    (loose / "echo").write_bytes(Path("/bin/echo").read_bytes())
    (loose / "echo").chmod(0o755)
    made = jail("-c", "name=x", f"path={tree}", f"exec.prestart={loose}/echo found", "command=/bin/true")
    assert (made.returncode, made.stdout) == (0, "found\n"), made


@pytest.fixture
def conf(tree: Path) -> Iterator[Path]:
    path = tree.parent / "jail.conf"
    path.write_text(f'x {{ path = "{tree}"; command = "/bin/true"; }}')
    yield path


def test_a_configuration_is_roots(jail: Command, tree: Path, conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert jail("-f", str(conf), "-c", "x").returncode == 0
    why = "others than root may write to it: chown root, chmod go-w"
    for owner, mode in ((1001, 0o644), (0, 0o666)):
        os.chown(conf, owner, -1)
        conf.chmod(mode)
        done = jail("-f", str(conf), "-c", "x")
        assert (done.returncode, done.stderr) == (1, f"jail: {conf}: {why}\n"), done
    monkeypatch.chdir(conf.parent)
    assert jail("-f", conf.name, "-e", ":").stderr == f"jail: {conf.name}: {why}\n"
    conf.chmod(0o644)
    included = tree.parent / "more"
    included.mkdir()
    included.chmod(0o777)
    (included / "a.conf").write_text("y { path = /; }")
    conf.write_text(f'.include "{included}/*.conf";')
    done = jail("-f", str(conf), "-e", ":")
    assert done.returncode == 1
    assert f"others than root may write to {included}, by way of which it is found: " in done.stderr


def test_nothing_in_a_tree_is_a_configuration(jail: Command, tree: Path) -> None:
    """Nor is a table of file systems, nor what a link in the tree leads to."""
    inside = tree / "etc/jail.conf"
    inside.parent.mkdir(exist_ok=True)
    inside.write_text("y { path = /; persist; }")
    (tree / "etc/fstab").write_text("tmpfs /tmp tmpfs rw 0 0\n")
    (tree / "etc/link").symlink_to(tree.parent / "jail.conf")
    (tree.parent / "jail.conf").write_text("y { path = /; persist; }")
    made = jail("-c", "name=x", "persist", f"path={tree}")
    assert made.returncode == 0, made.stderr
    try:
        for name in ("jail.conf", "link"):
            done = jail("-f", f"{tree}/etc/{name}", "-c", "y")
            why = f"jail: {tree}/etc/{name}: in the tree of jail x, whose root can write to it\n"
            assert (done.returncode, done.stderr) == (1, why), done
        (tree.parent / "other").mkdir()
        done = jail("-c", "name=z", f"path={tree.parent}/other", "persist", f"mount.fstab={tree}/etc/fstab")
        assert done.returncode == 1 and "in the tree of jail x" in done.stderr, done
    finally:
        jail("-R", "x")
