/*
 * A client of a real sanlock daemon (SANLOCK_RUN_DIR chooses which), driven over stdin and stdout, one line each.
 *
 *   client hold RESOURCE
 *       take      -> "taken LVER" or "refused ERRNO"      release -> "released" or "failed ERRNO"
 *   client contend RESOURCE COUNTER HOSTID
 *       runs until stdin is closed, then prints
 *       {"grants":n,"refusals":n,"overlaps":n,"regressions":n,"failures":n}
 *
 * COUNTER is a file of one 4096-byte sector that only the owner of the lease reads and writes, past every cache:
 * u64 count, u64 lver, u64 who is inside (0 = nobody).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sanlock.h>
#include <sanlock_resource.h>
#include <sanlock_rv.h>

static int sock;
static struct sanlk_resource *resource;

static uint64_t granted_lver(void)
{
    char *state = NULL;
    int count = 0;
    int rv = sanlock_inquire(sock, -1, 0, &count, &state);
    if (rv < 0 || count != 1 || !state) {
        fprintf(stderr, "inquire: %d, %d leases\n", rv, count);
        return 0;
    }
    /* LOCKSPACE:RESOURCE:PATH:OFFSET:LVER */
    char *last = strrchr(state, ':');
    uint64_t lver = last ? strtoull(last + 1, NULL, 10) : 0;
    free(state);
    return lver;
}

static int take(void)
{
    struct sanlk_resource *list[1] = {resource};
    return sanlock_acquire(sock, -1, 0, 1, list, NULL);
}

static int release(void)
{
    struct sanlk_resource *list[1] = {resource};
    return sanlock_release(sock, -1, 0, 1, list);
}

static int stdin_closed(void)
{
    struct pollfd in = {.fd = 0, .events = POLLIN};
    return poll(&in, 1, 0) > 0;
}

static int hold(void)
{
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        if (!strcmp(line, "take\n")) {
            int rv = take();
            if (rv < 0)
                printf("refused %d\n", -rv);
            else
                printf("taken %llu\n", (unsigned long long)granted_lver());
        } else {
            int rv = release();
            if (rv < 0)
                printf("failed %d\n", -rv);
            else
                printf("released\n");
        }
    }
    return 0;
}

static int contend(const char *path, uint64_t self)
{
    long grants = 0, refusals = 0, overlaps = 0, regressions = 0, failures = 0;
    uint64_t *sector;
    int fd = open(path, O_RDWR | O_DIRECT | O_DSYNC);
    if (fd < 0 || posix_memalign((void **)&sector, 4096, 4096))
        return 1;
    srand(getpid());
    while (!stdin_closed()) {
        if (take() < 0) {
            refusals++;
            usleep(1000 + rand() % 3000);
            continue;
        }
        uint64_t lver = granted_lver();
        grants++;
        if (pread(fd, sector, 4096, 0) != 4096)
            failures++;
        overlaps += sector[2] != 0;
        regressions += sector[1] >= lver;
        if (sector[1] >= lver)
            fprintf(stderr, "lver went back: granted %llu after %llu\n", (unsigned long long)lver, (unsigned long long)sector[1]);
        sector[0]++;
        sector[1] = lver;
        sector[2] = self;
        uint64_t count = sector[0];
        if (pwrite(fd, sector, 4096, 0) != 4096)
            failures++;
        usleep(300);
        if (pread(fd, sector, 4096, 0) != 4096)
            failures++;
        overlaps += sector[2] != self || sector[0] != count;
        sector[2] = 0;
        if (pwrite(fd, sector, 4096, 0) != 4096)
            failures++;
        if (release() < 0)
            failures++;
        usleep(rand() % 2000);
    }
    printf("{\"grants\":%ld,\"refusals\":%ld,\"overlaps\":%ld,\"regressions\":%ld,\"failures\":%ld}\n",
           grants, refusals, overlaps, regressions, failures);
    return 0;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc < 3)
        return 2;
    char *name = strdup(argv[2]);
    int rv = sanlock_str_to_res(name, &resource);
    if (rv < 0) {
        fprintf(stderr, "resource %s: %d\n", argv[2], rv);
        return 1;
    }
    sock = sanlock_register();
    if (sock < 0) {
        fprintf(stderr, "register: %d\n", sock);
        return 1;
    }
    if (!strcmp(argv[1], "hold"))
        return hold();
    return argc < 5 ? 2 : contend(argv[3], strtoull(argv[4], NULL, 10));
}
