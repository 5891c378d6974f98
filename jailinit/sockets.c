/*
 * The broker of a jail's sockets. A filter in the jail hands socket(2) of an internet family over to it; it makes the socket
 * where it is itself, in the host's network namespace and in a cgroup whose programs hold the socket to the jail's
 * addresses, and puts it among the caller's descriptors. The three arguments are in registers, which the kernel has copied.
 * So it is with ioctl(2) for interfaces, which would be the host's on such a socket: they are asked of a socket in the
 * jail's own namespace. Descriptors: 0 a pidfd of the jail's PID 1, 1 where the terms arrive with that socket and then
 * listeners, 2 its other end, for whoever enters the jail to take (pidfd_getfd(2)).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "call.h"

struct terms {
	unsigned int owner, first, count;	/* whose the sockets are: the caller's, if it is one of `count` uids from `first` */
	struct sockaddr_in address4;		/* the primary ones; of family 0 where the jail has none */
	struct sockaddr_in6 address6;
};

static int
open_of(unsigned int thread, const char *rest, int flags)
{
	char path[32] = "/proc/", digits[10], *p = path + 6;
	int n;

	for (n = 0; thread != 0; thread /= 10)
		digits[n++] = '0' + thread % 10;
	while (n > 0)
		*p++ = digits[--n];
	while ((*p++ = *rest++) != '\0')
		;
	return call(SYS_openat, AT_FDCWD, (long)path, flags | O_CLOEXEC, 0, 0, 0);
}

/* What /proc says of a thread: its fsuid, and whether it has CAP_NET_RAW. */
static int
look_at(unsigned int thread, unsigned int *uid, int *raw)
{
	char text[16384], *p, *line;
	long n, i, fd = open_of(thread, "/status", O_RDONLY), found = -ESRCH;

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
			p = line + 9 + 15 - CAP_NET_RAW / 4;
			if (p < text + n)
				*raw = (*p >= 'a' ? *p - 'a' + 10 : *p - '0') >> CAP_NET_RAW % 4 & 1;
			break;
		}
	}
	return found;		/* beyond thousands of groups there is no telling of capabilities */
}

/* Whether what was read below /proc is the caller's: while it waits, nobody else has its number. */
static int
waits(int listener, const struct seccomp_notif *asked)
{
	return call(SYS_ioctl, listener, SECCOMP_IOCTL_NOTIF_ID_VALID, (long)&asked->id, 0, 0, 0) >= 0;
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

	result = look_at(asked->pid, &uid, &privileged);
	if (!waits(listener, asked))
		return -ESRCH;
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
	return result;
}

/* netdevice(7): read the request, ask, write the answer. Its memory is the one that was opened while it waited. */
static int
ask_interfaces(int listener, int asking, const struct seccomp_notif *asked)
{
	union { struct ifreq one; struct ifconf all; } given;
	struct ifreq list[512];	/* one an IPv4 address */
	unsigned int request = asked->data.args[1];
	unsigned long place = asked->data.args[2], listed = 0;
	long size = request == SIOCGIFCONF ? sizeof(given.all) : sizeof(given.one), result = -ESRCH;
	int memory = open_of(asked->pid, "/mem", O_RDWR);

	if (memory < 0)
		return -EPERM;
	if (!waits(listener, asked))
		goto out;
	result = -EFAULT;
	if (call(SYS_pread64, memory, (long)&given, size, place, 0, 0) != size)
		goto out;
	if (request == SIOCGIFCONF && given.all.ifc_buf != 0) {
		listed = (unsigned long)given.all.ifc_buf;
		given.all.ifc_req = list;
		if (given.all.ifc_len > (int)sizeof(list))
			given.all.ifc_len = sizeof(list);
	}
	result = call(SYS_ioctl, asking, request, (long)&given, 0, 0, 0);
	if (result < 0)
		goto out;
	if (listed != 0) {
		given.all.ifc_buf = (char *)listed;
		if (call(SYS_pwrite64, memory, (long)list, given.all.ifc_len, listed, 0, 0) != given.all.ifc_len)
			result = -EFAULT;
	}
	if (call(SYS_pwrite64, memory, (long)&given, size, place, 0, 0) != size)
		result = -EFAULT;
out:
	call(SYS_close, memory, 0, 0, 0, 0, 0);
	return result;
}

static void
answer(int listener, int asking, const struct terms *terms)
{
	struct seccomp_notif asked = { 0 };
	struct seccomp_notif_resp said = { 0 };

	if (call(SYS_ioctl, listener, SECCOMP_IOCTL_NOTIF_RECV, (long)&asked, 0, 0, 0) < 0)
		return;			/* it has gone meanwhile */
	said.id = asked.id;
	if (asked.data.nr == SYS_socket)
		said.error = make_socket(listener, terms, &asked);
	else
		said.error = asked.data.nr == SYS_ioctl ? ask_interfaces(listener, asking, &asked) : -ENOSYS;
	if (said.error < 0 || asked.data.nr == SYS_ioctl)	/* a socket is its own answer */
		call(SYS_ioctl, listener, SECCOMP_IOCTL_NOTIF_SEND, (long)&said, 0, 0, 0);
}

/* The next descriptor that arrives, and what comes with it; -1 where there is none. */
static int
receive(void *data, unsigned long size)
{
	struct { struct cmsghdr head; int fd; } control;
	struct iovec part = { data, size };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };

	if (call(SYS_recvmsg, 1, (long)&message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT, 0, 0, 0) < 0 ||
	    message.msg_controllen < sizeof(control.head) + sizeof(int))
		return -1;
	return control.fd;
}

static long
watch(int poll, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	return call(SYS_epoll_ctl, poll, EPOLL_CTL_ADD, fd, (long)&event, 0, 0);
}

void
sockets(void)
{
	struct terms terms;
	struct epoll_event event;
	int poll = call(SYS_epoll_create1, EPOLL_CLOEXEC, 0, 0, 0, 0, 0), asking = receive(&terms, sizeof(terms)), fd;
	char byte;

	if (poll < 0 || asking < 0)
		return;
	call(SYS_prctl, PR_SET_NAME, (long)"jail-sockets", 0, 0, 0, 0);
	if (watch(poll, 0) < 0 || watch(poll, 1) < 0)
		return;
	for (;;) {
		if (call(SYS_epoll_pwait, poll, (long)&event, 1, -1, 0, 8) != 1)
			continue;
		fd = event.data.fd;
		if (fd == 0)
			return;		/* the jail has ended */
		if (fd == 1) {
			if ((fd = receive(&byte, 1)) >= 0 && watch(poll, fd) < 0)
				call(SYS_close, fd, 0, 0, 0, 0, 0);	/* its socket(2) fails with ENOSYS */
		} else if (event.events & EPOLLIN)
			answer(fd, asking, &terms);
		else
			call(SYS_close, fd, 0, 0, 0, 0, 0);	/* nobody is left whom its filter is upon */
	}
}
