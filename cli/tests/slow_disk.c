/* A slow disk, preloaded (LD_PRELOAD): each write at a place of a file takes SLOW_DISK_MS for each begun MiB; with
 * SLOW_DISK_BELOW, of files below this folder alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static int is_below(int fd, const char *folder)
{
	char link[64], path[4096];
	ssize_t length;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = readlink(link, path, sizeof(path));
	return length >= (ssize_t)strlen(folder) && memcmp(path, folder, strlen(folder)) == 0;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at)
{
	static ssize_t (*real)(int, const void *, size_t, off64_t);
	const char *ms = getenv("SLOW_DISK_MS"), *below = getenv("SLOW_DISK_BELOW");

	if (!real)
		real = (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
	if (ms && (!below || is_below(fd, below))) {
		long long ns = atoll(ms) * 1000000LL * (1 + (long long)(count >> 20));
		struct timespec pause = { ns / 1000000000LL, ns % 1000000000LL };
		while (nanosleep(&pause, &pause) != 0)
			;
	}
	return real(fd, bytes, count, at);
}
