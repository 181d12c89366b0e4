/* A disk that takes half a second longer for every sync of a controller or an agent. To be preloaded (LD_PRELOAD); the
 * operator's own commands are left alone, they do not serve. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <time.h>

static void wait_for_the_disk(void) {
    static const struct timespec half_a_second = {0, 500 * 1000 * 1000};
    if (strncmp(program_invocation_short_name, "dotmac-", 7) == 0)
        nanosleep(&half_a_second, NULL);
}

int fsync(int file) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    wait_for_the_disk();
    return real(file);
}

int fdatasync(int file) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    wait_for_the_disk();
    return real(file);
}
