/*
 * jailinit: what runs where Python must not, in a jail or on the way into one.
 *
 *	init			PID 1; fd 0 is cgroup.events of the jail's members
 *	jailinit run FD		carry out the system calls laid down in the file FD, the last of which is an exec or exit
 *	jailinit sockets	on the host: make the sockets of a jail that uses the host's stack (src/jailng/core/stack.py)
 *
 * There is one PID 1 a jail, so it has no libc and no memory but its stack. It needs to reap nobody: SIGCHLD is ignored
 * when it is started, and then the kernel reaps (wait(2), NOTES). What enters a jail carries nothing of the host's in
 * its memory but the calls that it has to make; every decision was taken before, by src/jailng/core/program.py.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/poll.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

struct pollfd_ { int fd; short events, revents; };

static long
call(long nr, long a, long b, long c, long d, long e, long f)
{
#if defined(__x86_64__)
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall" : "=a"(result) : "0"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
	    : "rcx", "r11", "memory");
	return result;
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = nr, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c,
	    x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = f;

	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
#else
#error "no system call convention for this machine"
#endif
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
	struct pollfd_ events = { .fd = 0, .events = POLLPRI };
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
 * struct program, and then: the calls, offsets of words that hold an offset and are to hold an address, data. All offsets
 * are into the data. An argument is a number, an offset (bit N of pointers) or what a call before kept (bit N of kept).
 */
struct program { unsigned long calls, addresses, report; };
struct call_ {
	unsigned short number, keep;	/* keep: where the result goes, 0 for nowhere */
	unsigned char kind, pointers, kept, unused;
	long argument[6];
	int expected, skip;	/* MUST: an error to pass over, with so many of the calls that follow; NOTE: any, but told */
};
enum { MUST, MAY, FORK, EXPECT, EXEC, NOTE };
enum { KEPT = 1024 };

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

	call(SYS_write, fd, (long)message, sizeof(message), 0, 0, 0);
}

static void
run(int fd)
{
	struct program *program;
	struct call_ *c;
	unsigned long i, n, *address;
	long size, result, argument[6], kept[KEPT], failed = 0;
	char *data;

	size = call(SYS_lseek, fd, 0, SEEK_END, 0, 0, 0);
	program = (struct program *)call(SYS_mmap, 0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	c = (struct call_ *)(program + 1);
	address = (unsigned long *)(c + program->calls);
	data = (char *)(address + program->addresses);
	for (i = 0; i < KEPT; i++)
		kept[i] = -1;
	for (i = 0; i < program->addresses; i++)
		*(unsigned long *)(data + address[i]) += (unsigned long)data;
	for (i = 0; i < program->calls; i++, c++) {
		for (n = 0; n < 6; n++)
			argument[n] = c->pointers >> n & 1 ? (long)data + c->argument[n] :
			    c->kept >> n & 1 ? kept[c->argument[n] % KEPT] : c->argument[n];
		result = call(c->number, argument[0], argument[1], argument[2], argument[3], argument[4], argument[5]);
		if (c->keep != 0)
			kept[c->keep % KEPT] = result < 0 ? -1 : result;	/* never AT_FDCWD, which is -ENETDOWN */
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
			if (failed == 0 || (result != -ENOENT && result != -ENOTDIR))
				failed = result;
			if (result != -ENOENT && result != -ENOTDIR && result != -EACCES)
				break;
		}
	}
	report(program->report, i < program->calls ? i : program->calls - 1, -failed);
}

/*
 * The broker of a jail's sockets. A filter in the jail hands socket(2) of an internet family over to it; it makes the socket
 * where it is itself, in the host's network namespace and in a cgroup whose programs hold the socket to the jail's
 * addresses, and puts it among the caller's descriptors. Nothing of the caller's memory is read: the three arguments are in
 * registers, which the kernel has copied. Descriptors: 0 a pidfd of the jail's PID 1, 1 where the terms arrive and then
 * listeners, 2 its other end, for whoever enters the jail to take (pidfd_getfd(2)).
 */
struct terms {
	unsigned int owner, first, count;	/* whose the sockets are: the caller's, if it is one of `count` uids from `first` */
	struct sockaddr_in address4;		/* the primary ones; of family 0 where the jail has none */
	struct sockaddr_in6 address6;
};

/* What /proc says of a thread: its fsuid, and whether it has CAP_NET_RAW. */
static int
look_at(unsigned int thread, unsigned int *uid, int *raw)
{
	char path[32] = "/proc/", digits[10], text[16384], *p = path + 6, *line;
	long n, i, fd, found = -ESRCH;

	for (n = 0; thread != 0; thread /= 10)
		digits[n++] = '0' + thread % 10;
	while (n > 0)
		*p++ = digits[--n];
	for (const char *rest = "/status"; (*p++ = *rest++) != '\0';)
		;
	fd = call(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
	if (fd < 0)
		return fd;
	n = call(SYS_read, fd, (long)text, sizeof(text) - 1, 0, 0, 0);
	call(SYS_close, fd, 0, 0, 0, 0, 0);
	if (n < 0)
		return n;
	text[n] = '\0';
	for (line = text; *line != '\0'; line++) {
		if (starts(line, "\nUid:\t")) {	/* real, effective, saved, that of the file system */
			for (p = line + 6, i = 0; i < 3; p++)
				i += *p == '\t';
			for (*uid = 0; *p >= '0' && *p <= '9'; p++)
				*uid = *uid * 10 + *p - '0';
			found = 0;
		} else if (starts(line, "\nCapEff:\t")) {	/* 16 digits, the last of which is of capabilities 0 to 3 */
			i = line[9 + 15 - CAP_NET_RAW / 4];
			*raw = (i >= 'a' ? i - 'a' + 10 : i - '0') >> CAP_NET_RAW % 4 & 1;
			break;
		}
	}
	return found;		/* beyond thousands of groups there is no telling of capabilities */
}

/* Whether the jail may have such a socket: 0 or the error. The filter has asked the same, and the kernel would ask more. */
static int
judge(const struct terms *terms, int family, int type, int protocol, int privileged)
{
	int kind = type & 0xf, ping = protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;

	if (type & ~(0xf | SOCK_CLOEXEC | SOCK_NONBLOCK))
		return -EINVAL;
	if (family == AF_INET ? terms->address4.sin_family == 0 : family != AF_INET6 || terms->address6.sin6_family == 0)
		return -EAFNOSUPPORT;
	if (kind == SOCK_RAW)
		return privileged ? 0 : -EPERM;
	if (kind == SOCK_DGRAM && ping)
		return -EACCES;		/* of a group beyond ping_group_range, as everybody in a jail is */
	if (kind != SOCK_STREAM && kind != SOCK_DGRAM)
		return -ESOCKTNOSUPPORT;
	return protocol == 0 || protocol == (kind == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP) ? 0 : -EPROTONOSUPPORT;
}

static int
make_socket(int listener, const struct terms *terms, const struct seccomp_notif *asked)
{
	int family = asked->data.args[0], type = asked->data.args[1], protocol = asked->data.args[2], privileged = 0;
	struct seccomp_notif_addfd given = { .id = asked->id, .flags = SECCOMP_ADDFD_FLAG_SEND };
	unsigned int uid = terms->owner;
	long fd, result;

	if (asked->data.nr != SYS_socket)
		return -ENOSYS;
	result = look_at(asked->pid, &uid, &privileged);
	if (call(SYS_ioctl, listener, SECCOMP_IOCTL_NOTIF_ID_VALID, (long)&asked->id, 0, 0, 0) < 0)
		return 0;		/* it has gone, and what was read may be of another */
	if (result < 0)
		return result;
	if (uid < terms->first || uid - terms->first >= terms->count)
		uid = terms->owner;
	result = judge(terms, family, type, protocol, privileged);
	if (result < 0)
		return result;
	fd = call(SYS_socket, family, type | SOCK_CLOEXEC, protocol, 0, 0, 0);
	if (fd < 0)
		return fd;
	/* SO_REUSEPORT shares with sockets of the same user: it must be none of the host's, nor of another jail's. */
	result = call(SYS_fchown, fd, uid, uid, 0, 0, 0);
	if (result >= 0 && (type & 0xf) == SOCK_RAW) {
		/* Else its source would be the host's. Where no interface has the address, what it sends is dropped. */
		if (family == AF_INET)
			call(SYS_bind, fd, (long)&terms->address4, sizeof(terms->address4), 0, 0, 0);
		else
			call(SYS_bind, fd, (long)&terms->address6, sizeof(terms->address6), 0, 0, 0);
	}
	if (result >= 0) {
		given.srcfd = fd;
		given.newfd_flags = type & SOCK_CLOEXEC;
		result = call(SYS_ioctl, listener, SECCOMP_IOCTL_NOTIF_ADDFD, (long)&given, 0, 0, 0);
	}
	call(SYS_close, fd, 0, 0, 0, 0, 0);
	return result < 0 ? result : 0;
}

static void
answer(int listener, const struct terms *terms)
{
	struct seccomp_notif asked = { 0 };
	struct seccomp_notif_resp said = { 0 };

	if (call(SYS_ioctl, listener, SECCOMP_IOCTL_NOTIF_RECV, (long)&asked, 0, 0, 0) < 0)
		return;			/* it has gone meanwhile */
	said.id = asked.id;
	said.error = make_socket(listener, terms, &asked);
	if (said.error < 0)
		call(SYS_ioctl, listener, SECCOMP_IOCTL_NOTIF_SEND, (long)&said, 0, 0, 0);
}

/* The next listener, which whoever enters the jail sends; -1 where there is none. */
static int
receive(void)
{
	struct { struct cmsghdr head; int fd; } control;
	char byte;
	struct iovec part = { &byte, 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };

	if (call(SYS_recvmsg, 1, (long)&message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT, 0, 0, 0) < 0 ||
	    message.msg_controllen < sizeof(control.head) + sizeof(int))
		return -1;
	return control.fd;
}

static void
watch(int poll, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	if (call(SYS_epoll_ctl, poll, EPOLL_CTL_ADD, fd, (long)&event, 0, 0) < 0)
		call(SYS_close, fd, 0, 0, 0, 0, 0);
}

static void
sockets(void)
{
	struct terms terms;
	struct epoll_event event;
	int poll = call(SYS_epoll_create1, EPOLL_CLOEXEC, 0, 0, 0, 0, 0), fd;

	if (poll < 0 || call(SYS_read, 1, (long)&terms, sizeof(terms), 0, 0, 0) != sizeof(terms))
		return;
	call(SYS_prctl, PR_SET_NAME, (long)"jail-sockets", 0, 0, 0, 0);
	watch(poll, 0);
	watch(poll, 1);
	for (;;) {
		if (call(SYS_epoll_pwait, poll, (long)&event, 1, -1, 0, 8) != 1)
			continue;
		fd = event.data.fd;
		if (fd == 0)
			return;		/* the jail has ended */
		if (fd == 1) {
			if ((fd = receive()) >= 0)
				watch(poll, fd);
		} else if (event.events & EPOLLIN)
			answer(fd, &terms);
		else
			call(SYS_close, fd, 0, 0, 0, 0, 0);	/* nobody is left whom its filter is upon */
	}
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
		run(fd);
		call(SYS_exit_group, 127, 0, 0, 0, 0, 0);
	}
	if (stack[0] == 2 && starts(argv[1], "sockets")) {
		sockets();
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
