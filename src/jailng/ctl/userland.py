"""What jailng puts into a root of its own making: /etc/rc and its kin, FreeBSD's spellings, and the way to them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from jailng.core import jailinit
from jailng.errors import JailError

SHIMS = "/usr/lib/jailng/shims"
# Where the first names systemd-resolved(8), on the host's loopback, the second has those that it asks itself.
_RESOLVERS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
# Debian's own, of login.defs(5), for root; FreeBSD gives it to everybody.
_ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TELL = "# FreeBSD's spellings of ps, ifconfig, netstat and the like."
_CSH = f"""
{_TELL}
if ("$PATH" !~ *{SHIMS}*) set path = ({SHIMS} $path)
# And its prompt, which says where one is.
if ($?prompt) then
    set promptchars = "%#"
    set prompt = "%m%# "
endif
"""
_SH = f'case ":$PATH:" in *:{SHIMS}:*) ;; *) PATH="{SHIMS}:$PATH" ;; esac\n'


def path() -> Path:
    """Where the files are."""
    return Path(jailinit.place("userland", "share/jailng/userland"))


def install(root: Path, hostname: str, sources: str) -> None:
    """Put all of it into a root that nobody has lived in yet. Raises JailError where jailng's own files are missing."""
    _copy(root)
    _edit_paths(root)
    _edit_users(root)
    etc = root / "etc"
    conf = etc / "rc.conf"
    conf.write_text(conf.read_text().replace('hostname=""', f'hostname="{hostname}"', 1))
    (etc / "hostname").write_text(f"{hostname or 'localhost'}\n")
    (etc / "fstab").write_text("")
    (etc / "machine-id").write_text("")
    # The one service of the article's inetd.conf, as somebody uncomments it by hand.
    inetd = etc / "inetd.conf"
    if inetd.exists():
        inetd.write_text(re.sub(r"^#<off># ", "#", inetd.read_text(), flags=re.MULTILINE))
    (etc / "apt/sources.list").unlink(missing_ok=True)
    for old in [*etc.glob("apt/sources.list.d/*"), *etc.glob("apt/apt.conf.d/99mmdebstrap")]:
        old.unlink()
    (etc / "apt/sources.list.d/debian.sources").write_text(sources)
    if not (etc / "rc.d").exists():
        (etc / "rc.d").symlink_to("init.d")
    _resolve(etc / "resolv.conf")


def has_key(root: Path, signed_by: str) -> bool:
    """Whether the keyring that a source names is in the root as well. One that is written out in the source is."""
    return not signed_by.startswith("/") or (root / signed_by.lstrip("/")).exists()


def _copy(root: Path) -> None:
    source = path()
    files = [file for file in sorted(source.rglob("*")) if file.is_file()]
    if not files:
        raise JailError(f"bootstrap: {source}: no files of jailng's there")
    for file in files:
        target = root / file.relative_to(source)
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        # What is a script says so itself; how it was installed on the host says nothing.
        target.chmod(0o755 if file.read_bytes().startswith(b"#!") else 0o644)


def _edit_users(root: Path) -> None:
    """FreeBSD's first user has the uid 1001, and its shells are in /bin."""
    for name, fields in (("login.defs", "UID_MIN GID_MIN"), ("adduser.conf", "FIRST_UID FIRST_GID")):
        file = root / "etc" / name
        if file.exists():
            text = file.read_text()
            for field in fields.split():
                text = re.sub(rf"^#?({field}[ \t=]+)1000$", r"\g<1>1001", text, flags=re.MULTILINE)
            file.write_text(text)
    shells = root / "etc/shells"
    known = shells.read_text() if shells.exists() else ""
    more = [f"/bin/{name}\n" for name in ("csh", "tcsh") if (root / "bin" / name).is_file()]
    shells.write_text(known + "".join([line for line in more if line not in known.splitlines(keepends=True)]))


def _edit_paths(root: Path) -> None:
    """Have every kind of login find the shims first: PAM's, su's, and shells', login shells or not."""
    etc = root / "etc"
    (etc / "environment").write_text(f'PATH="{SHIMS}:{_ROOT_PATH}"\n')
    (etc / "profile.d").mkdir(exist_ok=True)
    (etc / "profile.d/jailng.sh").write_text(f"{_TELL}\n{_SH}")
    for name, text in (("csh.cshrc", _CSH), ("bash.bashrc", "\n" + _SH)):
        if name == "csh.cshrc" or (etc / name).exists():
            with open(etc / name, "a") as file:
                file.write(text)
    login = etc / "login.defs"
    if login.exists():
        text = re.sub(r"^(ENV_(SU)?PATH\s+PATH=)(?!/usr/lib)", rf"\1{SHIMS}:", login.read_text(), flags=re.MULTILINE)
        login.write_text(text)


def _resolve(there: Path) -> None:
    """The host's name servers, of the first of _RESOLVERS that has any; but one on its loopback is nobody in a jail."""
    for path in _RESOLVERS:
        lines = _settings(path)
        if any(line.split()[0] == "nameserver" for line in lines):
            break
    else:
        lines = [*_settings(_RESOLVERS[0]), "# nameserver 192.0.2.53"]
    there.unlink(missing_ok=True)
    there.write_text("\n".join(lines) + "\n")


def _settings(path: Path) -> list[str]:
    """The lines of resolv.conf(5) that say something, and hold in a jail."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if not re.match(r"\s*($|[#;]|nameserver\s+(127\.|::1\b))", line)]
