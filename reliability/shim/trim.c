/* Gives what a process has freed back to the system, again and again: glibc keeps it in arenas of
 * its threads, and what a process holds cannot be told from what its allocator keeps. */
#include <malloc.h>
#include <pthread.h>
#include <unistd.h>

static void *trim(void *nothing) {
    for (;;) {
        sleep(2);
        malloc_trim(0);
    }
    return nothing;
}

__attribute__((constructor)) static void begin(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, trim, NULL) == 0)
        pthread_detach(thread);
}
