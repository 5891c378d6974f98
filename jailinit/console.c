/*
 * What keeps a guest's console outside: it copies what the guest writes there to a file of the host's, and when that is
 * full begins another, so that there are two at most. Descriptors: 0 the master of the console, or a pipe's end for
 * reading, not blocking; 1 the file; 2 its directory; 3 a pidfd of the jail's PID 1; 4 the slave, which it holds so that
 * the console is never hung up. It ends once PID 1 has ended and nothing is left to read, or the pipe has no writer.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/poll.h>
#include <stdio.h>

#include "call.h"

enum { MOST = 4 << 20, PART = 4096, BURST = 1 << 20 };

/* The name of the file in its directory is the caller's; a file that cannot be begun anew is emptied. */
static void
begin_another(const char *name, const char *old)
{
	long fd;

	call(SYS_renameat2, 2, (long)name, 2, (long)old, 0, 0);
	fd = call(SYS_openat, 2, (long)name, O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600, 0, 0);
	if (fd < 0) {
		call(SYS_ftruncate, 1, 0, 0, 0, 0, 0);
		return;
	}
	call(SYS_dup3, fd, 1, 0, 0, 0, 0);
	call(SYS_close, fd, 0, 0, 0, 0, 0);
}

void
console(const char *name, const char *old)
{
	struct pollfd ends[2] = { { .fd = 0, .events = POLLIN }, { .fd = 3, .events = POLLIN } };
	const long pause[2] = { 0, 200000000 };	/* struct timespec */
	char part[PART];
	long n, size, burst = 0, ended = 0;

	size = call(SYS_lseek, 1, 0, SEEK_END, 0, 0, 0);
	for (;;) {
		n = call(SYS_read, 0, (long)part, sizeof(part), 0, 0, 0);
		if (n > 0) {
			if (size + n > MOST) {
				begin_another(name, old);
				size = 0;
			}
			/* What a full disk does not take is lost; the guest is not kept waiting for it. */
			if (call(SYS_write, 1, (long)part, n, 0, 0, 0) > 0)
				size += n;
			/* Nor is the disk kept busy by a guest that writes without end: 5 MB a second, and it is the guest who waits. */
			if ((burst += n) >= BURST && !ended) {
				burst = 0;
				call(SYS_nanosleep, (long)pause, 0, 0, 0, 0, 0);
			}
			continue;
		}
		if (n == 0 || ended)
			return;
		if (n != -EAGAIN && n != -EINTR)	/* not for long: the guest's console is to last as long as the guest */
			call(SYS_nanosleep, (long)pause, 0, 0, 0, 0, 0);
		call(SYS_ppoll, (long)ends, 2, 0, 0, 0, 0);
		ended = ends[1].revents != 0;	/* what was written before that is still to be read */
	}
}
