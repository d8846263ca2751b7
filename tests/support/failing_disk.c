/* Lets one call on the store's data file fail, where a test asks for it. Preloaded into a server (failing_disk.py).

   A test creates $FAILING_DISK/CALL-ERRNO: the next CALL, of whatever process of the server, fails with that number, and
   takes the file away. CALL is `page` (a write of pages), `sync` (their fdatasync), or `meta` (the synced write that
   makes LMDB's commit). */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static const int errors[] = {EIO, ENOSPC};

static int is_store(int fd) {
    static const char name[] = "/store/data.mdb";
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    size_t tail = sizeof name - 1;
    return length >= (ssize_t)tail && memcmp(path + length - tail, name, tail) == 0;
}

static int fails(const char *call, int fd) {
    const char *directory = getenv("FAILING_DISK");
    char path[4096];
    int saved = errno;
    for (size_t i = 0; directory && i < sizeof errors / sizeof *errors; i++) {
        snprintf(path, sizeof path, "%s/%s-%d", directory, call, errors[i]);
        if (access(path, F_OK) == 0 && is_store(fd) && unlink(path) == 0) {
            errno = errors[i];
            return 1;
        }
    }
    errno = saved;
    return 0;
}

static int write_fails(int fd) {
    int flags = fcntl(fd, F_GETFL);
    return fails(flags != -1 && (flags & O_DSYNC) ? "meta" : "page", fd);
}

int fdatasync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return fails("sync", fd) ? -1 : real(fd);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    ssize_t (*real)(int, const void *, size_t, off_t) =
        (ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite");
    return write_fails(fd) ? -1 : real(fd, bytes, count, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    ssize_t (*real)(int, const struct iovec *, int) =
        (ssize_t (*)(int, const struct iovec *, int))dlsym(RTLD_NEXT, "writev");
    return write_fails(fd) ? -1 : real(fd, parts, count);
}
