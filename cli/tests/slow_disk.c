/* A slow disk, preloaded (LD_PRELOAD): each write at a place of a file takes SLOW_DISK_MS for each begun MiB, once the
 * file SLOW_DISK_WHEN is there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at)
{
	static ssize_t (*real)(int, const void *, size_t, off64_t);
	const char *ms = getenv("SLOW_DISK_MS"), *when = getenv("SLOW_DISK_WHEN");

	if (!real)
		real = (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
	if (ms && (!when || access(when, F_OK) == 0)) {
		long long ns = atoll(ms) * 1000000LL * (1 + (long long)(count >> 20));
		struct timespec pause = { ns / 1000000000LL, ns % 1000000000LL };
		while (nanosleep(&pause, &pause) != 0)
			;
	}
	return real(fd, bytes, count, at);
}
