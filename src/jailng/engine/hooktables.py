"""Which programs execute, or obey, what they are told of in their command line: for engine/hookwords.py."""

from __future__ import annotations

# Before a command, which follows: words of the shell's, and programs that execute one of their operands.
KEYWORDS = frozenset("! { } ( ) if then elif else while until do time coproc".split())
RUNNERS = frozenset(
    "builtin busybox capsh cgexec choom chpst chrt chronic command dbus-run-session doas dumb-init env eval exec "
    "fakeroot firejail flock gosu i386 ionice ip linux32 linux64 ltrace nice nohup nsenter numactl parallel pkexec "
    "prlimit runuser setarch setpriv setsid setuidgid sg start-stop-daemon stdbuf strace su su-exec sudo "
    "systemd-inhibit systemd-run taskset time timeout tini toybox unbuffer unshare valgrind watch x86_64 xargs".split()
)
# Programs that do what the first file among their operands says, and the letters of options that give that text itself.
SHELLS = frozenset("sh ash bash dash ksh mksh zsh".split())
READERS = dict.fromkeys(SHELLS, "c") | dict.fromkeys(
    ". source csh tcsh expect fish lua node perl php python ruby tclsh".split(), "cem"
)
# Programs that execute what is in a directory which is one of their operands.
CHANGERS = frozenset("arch-chroot bwrap chroot nsenter pivot_root proot run-parts systemd-nspawn unshare".split())
# Programs that do what a file says which follows one of these options, or is in the directory that does.
TOLD: dict[str, tuple[str, tuple[str, ...]]] = {
    **dict.fromkeys("awk gawk mawk".split(), ("fil", ("file", "include", "load"))),
    **dict.fromkeys("gmake make".split(), ("Cf", ("directory", "file", "makefile"))),
    "at": ("f", ("file",)),
    "dpkg": ("i", ("instdir", "install", "root")),
    "git": ("C", ("exec-path", "git-dir", "work-tree")),
    "ifup": ("i", ("interfaces",)),
    "mount": ("TF", ("fstab",)),
    "umount": ("F", ()),
    "sed": ("f", ("file",)),
    "start-stop-daemon": ("r", ("chroot",)),
    "sysctl": ("fp", ("load",)),
    # They look users up in there, by libraries that are in there.
    **dict.fromkeys(
        "chage chfn chgpasswd chpasswd chsh faillog groupadd groupdel groupmod grpck lastlog newusers passwd pwck "
        "useradd userdel usermod vipw".split(),
        ("R", ("root",)),
    ),
    "gpasswd": ("Q", ("root",)),
}
# Programs that do so with their operands, and those that do what is said where they are.
OBEDIENT = frozenset("crontab insmod".split())
LOCAL = frozenset("cargo composer git gmake make npm rake yarn".split())
# Variables that name what is loaded into a program, or is read by it first.
LOADED = frozenset(
    "BASH_ENV ENV LD_AUDIT LD_LIBRARY_PATH LD_PRELOAD PERL5LIB PERLLIB PYTHONHOME PYTHONPATH RUBYLIB".split()
)
DECLARING = frozenset("declare export local readonly typeset".split())
# Options of those that have the program, or a line for a shell, in the same word.
GLUED = ("--command=", "--exec=", "--startas=")
FINDS = ("-exec", "-execdir", "-ok", "-okdir")

# Programs that make, change or remove what their operands name, and what becomes of a link that is there. On the way to
# what is named links are followed by all.
AT, INTO, THROUGH = range(3, 6)  # it stays one; it is followed to a directory; it is followed
WORKERS = {
    **dict.fromkeys("find link mkdir mkfifo mknod rm rmdir sed unlink".split(), AT),
    **dict.fromkeys("install ln mv rsync".split(), INTO),
    **dict.fromkeys(
        "chattr chgrp chmod chown cp dd ed ex fallocate mount mount_nullfs patch setcap setfacl setfattr shred "
        "tar tee touch truncate umount unzip".split(),
        THROUGH,
    ),
}
# Options with which none is followed that is there: of any of them, and letters of one.
NOT_FOLLOWED = frozenset(["--no-dereference", "--no-target-directory", "--remove-destination"])
KEPT = {"chgrp": "h", "chown": "h", "ln": "nT", "mv": "T", "cp": "T", "touch": "h"}
