/* LD_PRELOAD: appends to $ZETAKV_RECORD_TRACE every change that this process makes to files below $ZETAKV_RECORD_ROOT.
 *
 * A record is a `struct record`, then the path or data, then for a rename or link the other path. It is written after
 * the call has returned and before the caller goes on, by one append: so whatever a call is the cause of, in whatever
 * process, comes later in the trace. A sync has two records, one before and one after: it promises what was recorded
 * before the first, from the second on. Calls that name files run under a lock on the trace, so that their order is the
 * trace's. What cannot be recorded (a shared writable mapping, a copy inside the kernel) is recorded as UNSUPPORTED.
 *
 * It keeps no state: which file a descriptor stands for is asked of the kernel at every call. `trace.py` reads this.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind {
    WRITE = 1, TRUNCATE, ALLOCATE, SYNC_BEGUN, SYNCED, CREATE, MKDIR, SYMLINK, LINK, RENAME, UNLINK, UNSUPPORTED
};

struct record {
    uint32_t kind;
    uint32_t durable; /* WRITE: the call itself synced what it wrote (O_DSYNC, O_SYNC) */
    uint64_t file;    /* inode */
    uint64_t offset;  /* of a write; the new size; the mode of what is made; of a sync, process and thread */
    uint32_t first_bytes;
    uint32_t second_bytes;
};

enum { TRACE_DESCRIPTOR_MIN = 900 };

static int trace = -1;
static char root[PATH_MAX];
static size_t root_bytes;

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("ZETAKV_RECORD_TRACE"), *below = getenv("ZETAKV_RECORD_ROOT");
    if (!path || !below || !realpath(below, root)) return;
    root_bytes = strlen(root);
    int low = REAL(open)(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    trace = fcntl(low, F_DUPFD_CLOEXEC, TRACE_DESCRIPTOR_MIN);
    if (low < 0 || trace < 0) abort();
    close(low);
}

static int is_below_root(const char *path) {
    return trace >= 0 && !strncmp(path, root, root_bytes) && (path[root_bytes] == '/' || !path[root_bytes]);
}

/* The inode of a file or directory below the root; 0 for every other descriptor. */
static uint64_t file_of(int descriptor) {
    struct stat status;
    char name[64], path[PATH_MAX];
    int saved = errno;
    uint64_t file = 0;
    if (trace >= 0 && !fstat(descriptor, &status) && (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode))) {
        snprintf(name, sizeof name, "/proc/self/fd/%d", descriptor);
        ssize_t bytes = readlink(name, path, sizeof path - 1);
        path[bytes < 0 ? 0 : bytes] = 0;
        if (is_below_root(path)) file = status.st_ino;
    }
    errno = saved;
    return file;
}

/* The whole path of a name, symlinks resolved but in the last part; 0 if it is not below the root. */
static int whole_path(int directory, const char *name, char *path) {
    char start[PATH_MAX], joined[PATH_MAX], parent[PATH_MAX];
    if (trace < 0) return 0;
    int saved = errno;
    if (name[0] == '/') start[0] = 0;
    else if (directory == AT_FDCWD) { if (!getcwd(start, sizeof start)) abort(); }
    else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
        ssize_t bytes = readlink(link, start, sizeof start - 1);
        start[bytes < 0 ? 0 : bytes] = 0;
    }
    size_t bytes = snprintf(joined, sizeof joined, "%s/%s", start, name);
    while (bytes > 1 && bytes < sizeof joined && joined[bytes - 1] == '/') joined[--bytes] = 0;
    char *last = strrchr(joined, '/');
    int found = 0;
    if (last && bytes < sizeof joined) {
        *last = 0;
        if (realpath(*joined ? joined : "/", parent) && strlen(parent) + strlen(last + 1) + 2 < PATH_MAX) {
            sprintf(path, "%s/%s", parent, last + 1);
            found = is_below_root(path);
        }
    }
    errno = saved;
    return found;
}

static void append(struct record record, const struct iovec *parts, int count) {
    struct iovec all[count + 1];
    size_t bytes = sizeof record;
    int saved = errno;
    all[0] = (struct iovec){&record, sizeof record};
    for (int i = 0; i < count; i++) bytes += (all[i + 1] = parts[i]).iov_len;
    if (REAL(writev)(trace, all, count + 1) != (ssize_t)bytes) abort(); /* a trace with holes would accuse the product */
    errno = saved;
}

static void note(enum kind kind, uint64_t file, uint64_t offset, const char *first, const char *second) {
    struct iovec parts[2] = {{(void *)first, strlen(first)}, {(void *)second, strlen(second)}};
    struct record record = {kind, 0, file, offset, parts[0].iov_len, parts[1].iov_len};
    append(record, parts, 2);
}

/* A lock of this call: closing it releases it. flock belongs to the open file, which forks and threads share. */
static int lock_names(void) {
    char name[64];
    int saved = errno;
    snprintf(name, sizeof name, "/proc/self/fd/%d", trace);
    int lock = REAL(open)(name, O_RDONLY | O_CLOEXEC);
    if (lock < 0) abort();
    while (flock(lock, LOCK_EX)) if (errno != EINTR) abort();
    errno = saved;
    return lock;
}

static void unlock_names(int lock) {
    int saved = errno;
    close(lock);
    errno = saved;
}

/* --- data --- */

static void note_written(int descriptor, uint64_t file, const struct iovec *parts, int count, int64_t offset, ssize_t bytes) {
    int saved = errno, flags = fcntl(descriptor, F_GETFL);
    struct iovec written[count];
    ssize_t left = bytes;
    int used = 0;
    if (offset < 0) offset = lseek(descriptor, 0, SEEK_CUR) - bytes; /* it was written where the descriptor stood */
    for (; used < count && left > 0; used++) {
        written[used] = parts[used];
        if ((ssize_t)written[used].iov_len > left) written[used].iov_len = left;
        left -= written[used].iov_len;
    }
    struct record record = {WRITE, !!(flags & O_DSYNC), file, offset, bytes, 0};
    append(record, written, used);
    errno = saved;
}

#define RECORDED_WRITE(descriptor, parts, count, offset, call) \
    uint64_t file = file_of(descriptor); \
    ssize_t bytes = call; \
    if (file && bytes > 0) note_written(descriptor, file, parts, count, offset, bytes); \
    return bytes

ssize_t write(int descriptor, const void *data, size_t length) {
    struct iovec part = {(void *)data, length};
    RECORDED_WRITE(descriptor, &part, 1, -1, REAL(write)(descriptor, data, length));
}

ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    RECORDED_WRITE(descriptor, parts, count, -1, REAL(writev)(descriptor, parts, count));
}

ssize_t pwrite(int descriptor, const void *data, size_t length, off_t offset) {
    struct iovec part = {(void *)data, length};
    RECORDED_WRITE(descriptor, &part, 1, offset, REAL(pwrite)(descriptor, data, length, offset));
}

ssize_t pwrite64(int descriptor, const void *data, size_t length, off64_t offset) {
    return pwrite(descriptor, data, length, offset);
}

ssize_t pwritev(int descriptor, const struct iovec *parts, int count, off_t offset) {
    RECORDED_WRITE(descriptor, parts, count, offset, REAL(pwritev)(descriptor, parts, count, offset));
}

ssize_t pwritev64(int descriptor, const struct iovec *parts, int count, off64_t offset) {
    return pwritev(descriptor, parts, count, offset);
}

int ftruncate(int descriptor, off_t size) {
    int result = REAL(ftruncate)(descriptor, size);
    uint64_t file = file_of(descriptor);
    if (!result && file) note(TRUNCATE, file, size, "", "");
    return result;
}

int ftruncate64(int descriptor, off64_t size) { return ftruncate(descriptor, size); }

int fallocate(int descriptor, int mode, off_t offset, off_t length) {
    int result = REAL(fallocate)(descriptor, mode, offset, length);
    uint64_t file = file_of(descriptor);
    if (!result && file) note(mode ? UNSUPPORTED : ALLOCATE, file, offset + length, mode ? "fallocate with a mode" : "", "");
    return result;
}

int fallocate64(int descriptor, int mode, off64_t offset, off64_t length) { return fallocate(descriptor, mode, offset, length); }

int posix_fallocate(int descriptor, off_t offset, off_t length) {
    int result = REAL(posix_fallocate)(descriptor, offset, length);
    uint64_t file = file_of(descriptor);
    if (!result && file) note(ALLOCATE, file, offset + length, "", "");
    return result;
}

int posix_fallocate64(int descriptor, off64_t offset, off64_t length) { return posix_fallocate(descriptor, offset, length); }

#define RECORDED_SYNC(call) \
    uint64_t file = file_of(descriptor), name = (uint64_t)getpid() << 32 | (uint32_t)gettid(); \
    if (file) note(SYNC_BEGUN, file, name, "", ""); \
    int result = call; \
    if (file && !result) note(SYNCED, file, name, "", ""); \
    return result

int fsync(int descriptor) { RECORDED_SYNC(REAL(fsync)(descriptor)); }

int fdatasync(int descriptor) { RECORDED_SYNC(REAL(fdatasync)(descriptor)); }

void *mmap(void *address, size_t length, int protection, int flags, int descriptor, off_t offset) {
    /* LMDB's lock file is mapped by all processes, and begun anew by the first one that opens it. */
    uint64_t file = (protection & PROT_WRITE) && (flags & MAP_SHARED) && descriptor >= 0 ? file_of(descriptor) : 0;
    if (file) {
        char name[64], path[PATH_MAX];
        snprintf(name, sizeof name, "/proc/self/fd/%d", descriptor);
        ssize_t bytes = readlink(name, path, sizeof path - 1);
        path[bytes < 0 ? 0 : bytes] = 0;
        const char *last = strrchr(path, '/');
        if (!last || strcmp(last, "/lock.mdb")) note(UNSUPPORTED, file, 0, "a shared writable mapping", "");
    }
    return REAL(mmap)(address, length, protection, flags, descriptor, offset);
}

void *mmap64(void *address, size_t length, int protection, int flags, int descriptor, off64_t offset) {
    return mmap(address, length, protection, flags, descriptor, offset);
}

ssize_t sendfile(int target, int source, off_t *offset, size_t length) {
    if (file_of(target)) note(UNSUPPORTED, 0, 0, "sendfile", "");
    return REAL(sendfile)(target, source, offset, length);
}

ssize_t sendfile64(int target, int source, off64_t *offset, size_t length) { return sendfile(target, source, offset, length); }

ssize_t copy_file_range(int source, off64_t *at, int target, off64_t *to, size_t length, unsigned flags) {
    if (file_of(target)) note(UNSUPPORTED, 0, 0, "copy_file_range", "");
    return REAL(copy_file_range)(source, at, target, to, length, flags);
}

/* --- names --- */

static int open_recorded(int directory, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    struct stat status;
    if (!(flags & (O_CREAT | O_TRUNC)) || !whole_path(directory, name, path))
        return REAL(openat)(directory, name, flags, mode);
    int lock = lock_names();
    int was_there = !lstat(path, &status);
    int descriptor = REAL(openat)(directory, name, flags, mode);
    if (descriptor >= 0 && !fstat(descriptor, &status)) {
        if (!was_there) note(CREATE, status.st_ino, status.st_mode & 07777, path, "");
        else if (flags & O_TRUNC && S_ISREG(status.st_mode)) note(TRUNCATE, status.st_ino, 0, "", "");
    }
    unlock_names(lock);
    return descriptor;
}

#define MODE_ARGUMENT(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

int open(const char *name, int flags, ...) { MODE_ARGUMENT(flags) return open_recorded(AT_FDCWD, name, flags, mode); }

int open64(const char *name, int flags, ...) { MODE_ARGUMENT(flags) return open_recorded(AT_FDCWD, name, flags, mode); }

int openat(int directory, const char *name, int flags, ...) {
    MODE_ARGUMENT(flags) return open_recorded(directory, name, flags, mode);
}

int openat64(int directory, const char *name, int flags, ...) {
    MODE_ARGUMENT(flags) return open_recorded(directory, name, flags, mode);
}

int creat(const char *name, mode_t mode) { return open_recorded(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int mkdirat(int directory, const char *name, mode_t mode) {
    char path[PATH_MAX];
    struct stat status;
    if (!whole_path(directory, name, path)) return REAL(mkdirat)(directory, name, mode);
    int lock = lock_names(), result = REAL(mkdirat)(directory, name, mode);
    if (!result && !lstat(path, &status)) note(MKDIR, status.st_ino, status.st_mode & 07777, path, "");
    unlock_names(lock);
    return result;
}

int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

int symlinkat(const char *target, int directory, const char *name) {
    char path[PATH_MAX];
    struct stat status;
    if (!whole_path(directory, name, path)) return REAL(symlinkat)(target, directory, name);
    int lock = lock_names(), result = REAL(symlinkat)(target, directory, name);
    if (!result && !lstat(path, &status)) note(SYMLINK, status.st_ino, 0, path, target);
    unlock_names(lock);
    return result;
}

int symlink(const char *target, const char *name) { return symlinkat(target, AT_FDCWD, name); }

int renameat2(int from, const char *old, int to, const char *new, unsigned flags) {
    char old_path[PATH_MAX], new_path[PATH_MAX];
    int is_old = whole_path(from, old, old_path), is_new = whole_path(to, new, new_path);
    if (!is_old && !is_new) return REAL(renameat2)(from, old, to, new, flags);
    int lock = lock_names(), result = REAL(renameat2)(from, old, to, new, flags);
    if (!result) note(flags || !is_old || !is_new ? UNSUPPORTED : RENAME, 0, 0, is_old ? old_path : old, is_new ? new_path : new);
    unlock_names(lock);
    return result;
}

int renameat(int from, const char *old, int to, const char *new) { return renameat2(from, old, to, new, 0); }

int rename(const char *old, const char *new) { return renameat2(AT_FDCWD, old, AT_FDCWD, new, 0); }

int linkat(int from, const char *old, int to, const char *new, int flags) {
    char old_path[PATH_MAX], new_path[PATH_MAX];
    int is_new = whole_path(to, new, new_path);
    if (!is_new) return REAL(linkat)(from, old, to, new, flags);
    int lock = lock_names(), result = REAL(linkat)(from, old, to, new, flags);
    if (!result) note(whole_path(from, old, old_path) ? LINK : UNSUPPORTED, 0, 0, old_path, new_path);
    unlock_names(lock);
    return result;
}

int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }

int unlinkat(int directory, const char *name, int flags) {
    char path[PATH_MAX];
    if (!whole_path(directory, name, path)) return REAL(unlinkat)(directory, name, flags);
    int lock = lock_names(), result = REAL(unlinkat)(directory, name, flags);
    if (!result) note(UNLINK, 0, 0, path, "");
    unlock_names(lock);
    return result;
}

int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }

int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int remove(const char *name) {
    struct stat status;
    if (lstat(name, &status)) return -1;
    return S_ISDIR(status.st_mode) ? rmdir(name) : unlink(name);
}
