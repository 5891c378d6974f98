/*
 * jailinit: PID 1 of a jail, and the last step on the way into one whose uids are the host's.
 *
 *	init			fd 0 is cgroup.events of the jail's members
 *	jailinit exec FD CMD..	run CMD by PATH; on failure write errno to FD
 *
 * There is one per jail, so it has no libc and no memory but its stack. It needs to reap nobody: SIGCHLD is ignored
 * when it is started, and then the kernel reaps (wait(2), NOTES).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/poll.h>
#include <linux/prctl.h>
#include <sys/syscall.h>

struct pollfd_ { int fd; short events, revents; };

static long
call(long nr, long a, long b, long c, long d, long e)
{
#if defined(__x86_64__)
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e;
	long result;

	__asm__ volatile("syscall" : "=a"(result) : "0"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
	    : "rcx", "r11", "memory");
	return result;
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = nr, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c,
	    x3 __asm__("x3") = d, x4 __asm__("x4") = e;

	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
	return x0;
#else
#error "no system call convention for this machine"
#endif
}

static unsigned long
length(const char *s)
{
	unsigned long n = 0;

	while (s[n] != '\0')
		n++;
	return n;
}

static int
starts(const char *s, const char *with)
{
	while (*with != '\0')
		if (*s++ != *with++)
			return 0;
	return 1;
}

/* The jail ends with its last member unless it is persistent; both are read from the kernel, so neither can be missed. */
static int
ended(void)
{
	char text[64];
	long n, i;

	if (call(SYS_fgetxattr, 0, (long)"user.jailng.persist", (long)text, sizeof(text), 0) != 1 || text[0] != '0')
		return 0;
	n = call(SYS_pread64, 0, (long)text, sizeof(text) - 1, 0, 0);
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
	struct pollfd_ events = { .fd = 0, .events = POLLPRI };
	char text[64];

	call(SYS_prctl, PR_SET_NAME, (long)"init", 0, 0, 0);
	call(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
	for (;;) {
		call(SYS_pread64, 0, (long)text, sizeof(text), 0, 0);	/* arms the next POLLPRI */
		if (ended())
			call(SYS_exit_group, 0, 0, 0, 0, 0);
		call(SYS_ppoll, (long)&events, 1, 0, 0, 0);
	}
}

/* execvp(3): what cannot be found in one directory is looked for in the next; EACCES is remembered. */
static long
run(char **argv, char **envp)
{
	static const char usual[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	const char *p = usual + 5;
	char path[4096];
	unsigned long n, size = length(argv[0]);
	long error, kept = -ENOENT;
	char **e;

	for (n = 0; n < size; n++)
		if (argv[0][n] == '/')
			return call(SYS_execve, (long)argv[0], (long)argv, (long)envp, 0, 0);
	for (e = envp; *e != 0; e++)
		if (starts(*e, "PATH="))
			p = *e + 5;
	for (;; p++) {
		for (n = 0; *p != '\0' && *p != ':'; p++)
			if (n < sizeof(path) - 2)
				path[n++] = *p;
		if (n == 0)
			path[n++] = '.';
		path[n++] = '/';
		if (size > 0 && n + size < sizeof(path)) {
			for (unsigned long i = 0; i <= size; i++)
				path[n + i] = argv[0][i];
			error = call(SYS_execve, (long)path, (long)argv, (long)envp, 0, 0);
			if (error == -EACCES)
				kept = error;
			else if (error != -ENOENT && error != -ENOTDIR)
				return error;
		}
		if (*p == '\0')
			return kept;
	}
}

__attribute__((used, noreturn)) void
start(long *stack)
{
	long argc = stack[0], error;
	char **argv = (char **)(stack + 1), **envp = argv + argc + 1;
	int fd = 0;

	if (argc > 3 && starts(argv[1], "exec")) {
		for (const char *p = argv[2]; *p >= '0' && *p <= '9'; p++)
			fd = fd * 10 + *p - '0';
		call(SYS_fcntl, fd, F_SETFD, FD_CLOEXEC, 0, 0);
		error = -run(argv + 3, envp);
		call(SYS_write, fd, (long)&error, sizeof(error), 0, 0);
		call(SYS_exit_group, 127, 0, 0, 0, 0);
	}
	init();
	__builtin_unreachable();
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n\txor %ebp,%ebp\n\tmov %rsp,%rdi\n\tand $-16,%rsp\n\tcall start\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n_start:\n\tmov x29,#0\n\tmov x0,sp\n\tbl start\n");
#endif
