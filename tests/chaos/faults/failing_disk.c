/* A disk that fails once, for LD_PRELOAD: the n-th sync or write of a file below a folder returns an error, and a file
 * is left that says which one it was. Everything else goes through. Told by the environment:
 *   DOTMAC_FAULT_BELOW   the folder          DOTMAC_FAULT_CALL    "sync" or "write"
 *   DOTMAC_FAULT_NTH     which call, from 1  DOTMAC_FAULT_ERRNO   the error's number
 *   DOTMAC_FAULT_REPORT  the file that is left
 * Only that one call fails: the next sync says that all is well, as the kernel's does, although pages are lost. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long calls;

static int is_below(int file, char *path, size_t size) {
    const char *below = getenv("DOTMAC_FAULT_BELOW");
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = below ? readlink(link, path, size - 1) : -1;
    if (length < 0) return 0;
    path[length] = 0;
    return strncmp(path, below, strlen(below)) == 0;
}

static int open_report(const char *path) {
    return open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
}

/* The error of this call, or 0 if it is to go through. */
static int error_of(const char *call, int file) {
    const char *wanted = getenv("DOTMAC_FAULT_CALL"), *nth = getenv("DOTMAC_FAULT_NTH");
    const char *number = getenv("DOTMAC_FAULT_ERRNO"), *report = getenv("DOTMAC_FAULT_REPORT");
    char path[4096];
    if (!wanted || !nth || !number || !report || strcmp(wanted, call) != 0) return 0;
    if (!is_below(file, path, sizeof path)) return 0;
    long count = atomic_fetch_add(&calls, 1) + 1;
    if (count != atol(nth)) return 0;
    int to = open_report(report);
    if (to >= 0) {
        ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
        char line[4200];
        int length = snprintf(line, sizeof line, "%s %ld of %s\n", call, count, path);
        if (real(to, line, (size_t)length) < 0) perror("report");
        close(to);
    }
    return atoi(number);
}

#define FAIL_OR(call, file, result)                  \
    do {                                             \
        int error = error_of(call, file);            \
        if (error) {                                 \
            errno = error;                           \
            return -1;                               \
        }                                            \
        return result;                               \
    } while (0)

int fsync(int file) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    FAIL_OR("sync", file, real(file));
}

int fdatasync(int file) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    FAIL_OR("sync", file, real(file));
}

ssize_t write(int file, const void *bytes, size_t count) {
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    FAIL_OR("write", file, real(file, bytes, count));
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t offset) {
    ssize_t (*real)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, "pwrite");
    FAIL_OR("write", file, real(file, bytes, count, offset));
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t offset) {
    ssize_t (*real)(int, const void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pwrite64");
    FAIL_OR("write", file, real(file, bytes, count, offset));
}
