/*
 * floor: the least that a container can cost on this kernel.
 *
 *	floor ROOT CMD...	run CMD in the tree ROOT, with a /proc and a /tmp of its own
 *
 * One clone3 with six namespaces, three mounts, pivot_root, exec: no user namespace, no cgroup, no device, no mask, no
 * filter, no capability dropped. Static, so that no dynamic loader is measured. Do not run anything in it that matters.
 */
#define _GNU_SOURCE
#include <err.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIX (CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP)

static void
inside(char **argv)
{
	int tree;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
		err(1, "/");
	tree = (int)syscall(SYS_open_tree, -100, argv[1], OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (tree < 0 || syscall(SYS_move_mount, tree, "", -100, "/", MOVE_MOUNT_F_EMPTY_PATH) != 0 || fchdir(tree) != 0)
		err(1, "%s", argv[1]);
	if (mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) != 0)
		err(1, "proc");
	if (mount("tmpfs", "tmp", "tmpfs", MS_NOSUID | MS_NODEV, NULL) != 0)
		err(1, "tmp");
	if (syscall(SYS_pivot_root, ".", ".") != 0 || umount2(".", MNT_DETACH) != 0)
		err(1, "pivot_root");
	execv(argv[2], argv + 2);
	err(127, "%s", argv[2]);
}

int
main(int argc, char **argv)
{
	struct clone_args how = { .flags = SIX, .exit_signal = SIGCHLD };
	int status;
	long pid;

	if (argc < 3)
		errx(2, "usage: floor root command ...");
	pid = syscall(SYS_clone3, &how, sizeof(how));
	if (pid == 0)
		inside(argv);
	if (pid < 0)
		err(1, "clone3");
	if (waitpid((pid_t)pid, &status, 0) < 0)
		err(1, "waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
