/* Preloaded, it makes the disk of one folder full: from the n-th write in it on, writes fail with
   ENOSPC. FULL_DISK_ROOT names the folder, FULL_DISK_COUNTS a file of two longs, the number of
   writes so far and n (0: never full); see full_disk.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static long *counts;
static const char *root;

#define REAL(name) static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name)

static int is_full(void) {
    if (!counts) {
        const char *file = getenv("FULL_DISK_COUNTS");
        int fd = file ? open(file, O_RDWR) : -1;
        root = getenv("FULL_DISK_ROOT");
        if (fd < 0 || !root) return 0;
        void *place = mmap(NULL, 2 * sizeof(long), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
        if (place == MAP_FAILED) return 0;
        counts = place;
    }
    long number = __atomic_add_fetch(&counts[0], 1, __ATOMIC_SEQ_CST);
    return counts[1] > 0 && number >= counts[1];
}

static int within(const char *path) {
    const char *wanted = root ? root : getenv("FULL_DISK_ROOT");
    return wanted && path && strncmp(path, wanted, strlen(wanted)) == 0;
}

static int in_folder(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return within(path);
}

static int makes(int folder, const char *path, int flags) {
    struct stat found;
    char whole[PATH_MAX * 2], here[PATH_MAX];
    if (!(flags & O_CREAT) || fstatat(folder, path, &found, 0) == 0) return 0;
    if (path[0] == '/') return within(path);
    if (folder != AT_FDCWD || !getcwd(here, sizeof here)) return folder != AT_FDCWD && in_folder(folder);
    snprintf(whole, sizeof whole, "%s/%s", here, path);
    return within(whole);
}

#define FAIL_IF(condition) if ((condition) && is_full()) { errno = ENOSPC; return -1; }

ssize_t write(int fd, const void *data, size_t size) { REAL(write); FAIL_IF(in_folder(fd)); return real(fd, data, size); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { REAL(pwrite); FAIL_IF(in_folder(fd)); return real(fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { REAL(pwrite64); FAIL_IF(in_folder(fd)); return real(fd, data, size, at); }
ssize_t writev(int fd, const struct iovec *parts, int number) { REAL(writev); FAIL_IF(in_folder(fd)); return real(fd, parts, number); }
int mkdir(const char *path, mode_t mode) { REAL(mkdir); FAIL_IF(makes(AT_FDCWD, path, O_CREAT)); return real(path, mode); }

#define OPEN(name) int name(const char *path, int flags, ...) { \
    mode_t mode = 0; va_list rest; va_start(rest, flags); if (flags & O_CREAT) mode = va_arg(rest, mode_t); va_end(rest); \
    REAL(name); FAIL_IF(makes(AT_FDCWD, path, flags)); return real(path, flags, mode); }
#define OPENAT(name) int name(int folder, const char *path, int flags, ...) { \
    mode_t mode = 0; va_list rest; va_start(rest, flags); if (flags & O_CREAT) mode = va_arg(rest, mode_t); va_end(rest); \
    REAL(name); FAIL_IF(makes(folder, path, flags)); return real(folder, path, flags, mode); }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
