/*
 * jailinit: what runs where Python must not, in a jail or on the way into one.
 *
 *	init			PID 1; fd 0 is cgroup.events of the jail's members
 *	jailinit run2 FD	carry out the system calls laid down in the file FD, the last of which is an exec or exit
 *	jailinit sockets	on the host: make the sockets of a jail that uses the host's stack (src/jailng/core/stack.py)
 *	jailinit console FILE OLD	on the host: keep what a guest writes on its console (src/jailng/core/console.py)
 *
 * There is one PID 1 a jail, so it has no libc and no memory but its stack. It needs to reap nobody: SIGCHLD is ignored
 * when it is started, and then the kernel reaps (wait(2), NOTES). What enters a jail carries nothing of the host's in
 * its memory but the calls that it has to make; every decision was taken before, by src/jailng/core/program.py.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/poll.h>
#include <linux/prctl.h>
#include <stdio.h>
#include <sys/mman.h>

#include "call.h"

/* The jail ends with its last member unless it is persistent; both are read from the kernel, so neither can be missed. */
static int
ended(void)
{
	char text[64];
	long n, i;

	if (call(SYS_fgetxattr, 0, (long)"user.jailng.persist", (long)text, sizeof(text), 0, 0) != 1 || text[0] != '0')
		return 0;
	n = call(SYS_pread64, 0, (long)text, sizeof(text) - 1, 0, 0, 0);
	if (n < 0)
		return n == -ENODEV;	/* the cgroup was removed */
	text[n] = '\0';
	for (i = 0; i < n; i++)
		if (starts(text + i, "populated 0"))
			return 1;
	return 0;
}

static void
init(void)
{
	struct pollfd events = { .fd = 0, .events = POLLPRI };
	char text[64];

	call(SYS_prctl, PR_SET_NAME, (long)"init", 0, 0, 0, 0);
	call(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0, 0);
	for (;;) {
		call(SYS_pread64, 0, (long)text, sizeof(text), 0, 0, 0);	/* arms the next POLLPRI */
		if (ended())
			call(SYS_exit_group, 0, 0, 0, 0, 0, 0);
		call(SYS_ppoll, (long)&events, 1, 0, 0, 0, 0);
	}
}

/*
 * struct program, and then: the calls, offsets of words that hold a place and are to hold an address, data. An offset is
 * into the data, and a place is DATA + offset. An argument is a place, KEPT + the number of what a call before kept, or
 * a number, which is never as small as these.
 */
struct program { unsigned long calls, addresses, report; };
struct call_ {
	unsigned short number, keep;	/* keep: where the result goes, 0 for nowhere */
	unsigned char kind;
	long argument[6];
	/* MUST: an error to pass over, with so many of the calls that follow; NOTE: any, but told; EXEC: 1 for execvp(3) */
	int expected, skip;
};
enum { MUST, MAY, FORK, EXPECT, EXEC, NOTE };
enum { NUMBERS = 1024 };
#define DATA (-(1L << 29))
#define KEPT (-(1L << 28))

/* A command starts with the signals as usual, whatever the caller ignores. Done here, where nobody waits for it. */
static void
reset_signals(void)
{
	static const unsigned long usual[4];	/* struct kernel_sigaction with SIG_DFL */
	long number;

	for (number = 1; number <= 64; number++)
		call(SYS_rt_sigaction, number, (long)usual, 0, 8, 0, 0);
}

static void
report(int fd, long what, long value)
{
	long message[2] = { what, value };

	if (call(SYS_write, fd, (long)message, sizeof(message), 0, 0, 0) != sizeof(message))
		call(SYS_exit_group, 126, 0, 0, 0, 0, 0);	/* who waits for it is not to wait for what was forked */
}

/* Whether a file is text by its beginning: what has a format, though none that this kernel knows, is no script. */
static int
is_text(long path)
{
	char head[64];
	long fd, n;

	fd = call(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0, 0, 0);
	n = call(SYS_read, fd, (long)head, sizeof(head), 0, 0, 0);
	if (fd >= 0)
		call(SYS_close, fd, 0, 0, 0, 0, 0);
	if (n < 0)
		return 0;
	while (n-- > 0)
		if (head[n] == 0 || head[n] == 0x7f)	/* as ELF has both */
			return 0;
	return 1;
}

/* What has no format is a script of sh's, as to execvp(3). Before the vector there is a place for one more word. */
static long
script(const long *argument)
{
	static const char shell[] = "/bin/sh";
	long *vector = (long *)argument[1], result;

	if (!is_text(argument[0]))
		return -ENOEXEC;
	vector[-1] = (long)shell;
	vector[0] = argument[0];
	result = call(SYS_execve, (long)shell, (long)(vector - 1), argument[2], 0, 0, 0);
	return result == -ENOENT ? -ENOEXEC : result;
}

static void
run(int fd)
{
	struct program *program;
	struct call_ *c;
	unsigned long i, n, *address;
	long size, value, result, argument[6], kept[NUMBERS], failed = 0;
	char *data;

	size = call(SYS_lseek, fd, 0, SEEK_END, 0, 0, 0);
	result = call(SYS_mmap, 0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	if (size < 0 || (result < 0 && result > -4096))
		return;		/* nor is there anything to tell it by but the end of this process */
	program = (struct program *)result;
	c = (struct call_ *)(program + 1);
	address = (unsigned long *)(c + program->calls);
	data = (char *)(address + program->addresses);
	for (i = 0; i < NUMBERS; i++)
		kept[i] = -1;
	for (i = 0; i < program->addresses; i++)
		*(long *)(data + address[i]) += (long)data - DATA;
	for (i = 0; i < program->calls; i++, c++) {
		for (n = 0; n < 6; n++) {
			value = c->argument[n];
			argument[n] = value >= KEPT + NUMBERS ? value : value >= KEPT ? kept[value - KEPT] :
			    (long)data + (value - DATA);
		}
		result = call(c->number, argument[0], argument[1], argument[2], argument[3], argument[4], argument[5]);
		if (c->keep != 0)
			kept[c->keep % NUMBERS] = result < 0 ? -1 : result;	/* never AT_FDCWD, which is -ENETDOWN */
		if (result < 0 && (c->kind == NOTE || (c->kind == MUST && -result == c->expected))) {
			if (c->kind == NOTE)
				report(program->report, i, -result);
			i += c->skip;
			c += c->skip;
		} else if (c->kind == MUST && result < 0) {
			report(program->report, i, -result);
			return;
		} else if (c->kind == FORK && result != 0) {
			report(program->report, result < 0 ? (long)i : ~(long)i, result < 0 ? -result : result);
			return;
		} else if (c->kind == EXPECT && result != c->expected) {
			return;
		} else if (c->kind == EXEC) {		/* execvp(3): the next directory of PATH may have it */
			if (result == -ENOEXEC && c->expected)
				result = script(argument);
			if (failed == 0 || (result != -ENOENT && result != -ENOTDIR))
				failed = result;
			if (result != -ENOENT && result != -ENOTDIR && result != -EACCES)
				break;
		}
	}
	report(program->report, i < program->calls ? i : program->calls - 1, -failed);
}

__attribute__((used, noreturn)) void
start(long *stack)
{
	char **argv = (char **)(stack + 1);
	int fd = 0;

	if (stack[0] == 3) {
		for (const char *p = argv[2]; *p >= '0' && *p <= '9'; p++)
			fd = fd * 10 + *p - '0';
		reset_signals();
		if (starts(argv[1], "run2"))	/* a process may outlive an upgrade, and lay calls down otherwise */
			run(fd);
		call(SYS_exit_group, 127, 0, 0, 0, 0, 0);
	}
	if (stack[0] == 2 && starts(argv[1], "sockets")) {
		sockets();
		call(SYS_exit_group, 0, 0, 0, 0, 0, 0);
	}
	if (stack[0] == 4 && starts(argv[1], "console")) {
		console(argv[2], argv[3]);
		call(SYS_exit_group, 0, 0, 0, 0, 0, 0);
	}
	init();
	__builtin_unreachable();
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n\txor %ebp,%ebp\n\tmov %rsp,%rdi\n\tand $-16,%rsp\n\tcall start\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n_start:\n\tmov x29,#0\n\tmov x0,sp\n\tbl start\n");
#endif
