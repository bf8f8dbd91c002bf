/*
 * Measures a running sanlock daemon through its own library, for the comparison in bench/main.ts.
 *
 *   sanlock-client lat  LOCKSPACE:RESOURCE:PATH:OFFSET COUNT      latency of acquire and release, one after the other
 *   sanlock-client loop LOCKSPACE:RESOURCE:PATH:OFFSET SECONDS    acquire, release at once, again; retries after 2.5 to
 *                                                                 7.5 ms, as sanlock's callers do
 *   sanlock-client hold LOCKSPACE:RESOURCE:PATH:OFFSET SECONDS    acquire, hold until the daemon is gone, at most SECONDS
 *   sanlock-client take LOCKSPACE:RESOURCE:PATH:OFFSET SECONDS    ask every 0.2 s until it is owned
 *
 * SANLOCK_RUN_DIR selects the daemon. Prints one JSON object; times in milliseconds.
 * Build: gcc -O2 -o sanlock-client sanlock-client.c -lsanlock
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <stdint.h>
#include <sys/select.h>
#include <sanlock.h>
#include <sanlock_admin.h>
#include <sanlock_resource.h>

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static void print_list(const char *name, const double *values, int count, const char *end)
{
	printf("\"%s\":[", name);
	for (int i = 0; i < count; i++)
		printf("%s%.4f", i ? "," : "", values[i]);
	printf("]%s", end);
}

static int fail(const char *what, int rv)
{
	fprintf(stderr, "%s: sanlock error %d\n", what, rv);
	return 1;
}

static int latency(int fd, struct sanlk_resource **res, int count)
{
	double *acquire = calloc(count, sizeof(double));
	double *release = calloc(count, sizeof(double));

	if (!acquire || !release)
		return fail("calloc", 0);
	for (int i = 0; i < count; i++) {
		double start = now_ms();
		int rv = sanlock_acquire(fd, -1, 0, 1, res, NULL);
		double owned = now_ms();

		if (rv < 0)
			return fail("acquire", rv);
		rv = sanlock_release(fd, -1, 0, 1, res);
		if (rv < 0)
			return fail("release", rv);
		acquire[i] = owned - start;
		release[i] = now_ms() - owned;
	}
	printf("{");
	print_list("acquire", acquire, count, ",");
	print_list("release", release, count, "}\n");
	return 0;
}

static int contend(int fd, struct sanlk_resource **res, double seconds)
{
	int room = 1000000, grants = 0, failures = 0;
	double *waits = calloc(room, sizeof(double));
	double end = now_ms() + seconds * 1e3;

	if (!waits)
		return fail("calloc", 0);
	srand(getpid());
	while (now_ms() < end && grants < room) {
		double start = now_ms();
		int rv;

		while ((rv = sanlock_acquire(fd, -1, 0, 1, res, NULL)) < 0) {
			failures++;
			if (now_ms() > end + 10000)
				break;
			usleep(2500 + rand() % 5001);
		}
		if (rv < 0)
			break;
		waits[grants++] = now_ms() - start;
		rv = sanlock_release(fd, -1, 0, 1, res);
		if (rv < 0)
			return fail("release", rv);
	}
	printf("{\"failures\":%d,", failures);
	print_list("waits", waits, grants, "}\n");
	return 0;
}

static int hold(int fd, struct sanlk_resource **res, double seconds)
{
	char byte;
	struct timeval limit = { .tv_sec = (long)seconds };
	fd_set set;
	int rv = sanlock_acquire(fd, -1, 0, 1, res, NULL);

	if (rv < 0)
		return fail("acquire", rv);
	/* The registered connection becomes readable (end of file) when the daemon dies. */
	FD_ZERO(&set);
	FD_SET(fd, &set);
	if (select(fd + 1, &set, NULL, NULL, &limit) > 0 && read(fd, &byte, 1) <= 0) {
		printf("{\"daemon\":\"gone\"}\n");
		return 0;
	}
	printf("{\"daemon\":\"alive\"}\n");
	return 0;
}

static int take(int fd, struct sanlk_resource **res, double seconds)
{
	double start = now_ms();
	int rv;

	while ((rv = sanlock_acquire(fd, -1, 0, 1, res, NULL)) < 0) {
		if (now_ms() - start > seconds * 1e3)
			return fail("take", rv);
		usleep(200000);
	}
	printf("{\"took\":%.1f}\n", now_ms() - start);
	return 0;
}

int main(int argc, char **argv)
{
	struct sanlk_resource *res = NULL;
	int fd, rv;

	if (argc != 4) {
		fprintf(stderr, "usage: %s lat|loop|hold|take RESOURCE COUNT|SECONDS\n", argv[0]);
		return 2;
	}
	rv = sanlock_str_to_res(argv[2], &res);
	if (rv < 0)
		return fail("resource", rv);
	fd = sanlock_register();
	if (fd < 0)
		return fail("register", fd);
	if (!strcmp(argv[1], "lat"))
		return latency(fd, &res, atoi(argv[3]));
	if (!strcmp(argv[1], "hold"))
		return hold(fd, &res, atof(argv[3]));
	if (!strcmp(argv[1], "take"))
		return take(fd, &res, atof(argv[3]));
	return contend(fd, &res, atof(argv[3]));
}
