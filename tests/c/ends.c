/* Ends a process, or the library in it, for the tests in tests/end.rs.
 *
 * ends HOW URI BOUND_MS [URI]
 *   HOW: exit, shutdown, dlclose, handlers (host's own exit handlers), twice (shutdown, twice),
 *        contended (threads wait for each other's locks, then dlclose), told (exit in on_wait)
 *   BOUND_MS: for camlease_set_shutdown_timeout; 0 leaves the default
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "camlease.h"

static void *library;
static camlease_camera *camera;
static camlease_frame *frame;
static const char *uri;

#define CALL(name) ((__typeof__(camlease_##name) *)look_up("camlease_" #name))

static void *look_up(const char *name)
{
    void *found = dlsym(library, name);
    if (!found) {
        fprintf(stderr, "ends: %s\n", dlerror());
        _exit(9);
    }
    return found;
}

static const char *name_of(camlease_status status)
{
    return CALL(status_name)(status);
}

static void hold(const char *what)
{
    if (CALL(camera_open)(what, NULL, &camera) || CALL(camera_start)(camera, NULL) ||
        CALL(camera_next_frame)(camera, 5000, &frame)) {
        fprintf(stderr, "ends: %s\n", CALL(last_error_message)());
        _exit(8);
    }
}

static void logged(void *user_data, uint32_t level, const char *message)
{
    (void)user_data, (void)level;
    puts(message);
}

static void use_all(const char *when)
{
    camlease_frame *next;
    camlease_camera *other;
    camlease_frame_data data = CAMLEASE_FRAME_DATA_INIT;
    printf("%s: next_frame %s\n", when, name_of(CALL(camera_next_frame)(camera, 5000, &next)));
    printf("%s: open %s\n", when, name_of(CALL(camera_open)("virtual:end-other", NULL, &other)));
    printf("%s: frame %s", when, name_of(CALL(frame_info)(frame, &data)));
    puts(data.size && data.data[0] + data.data[data.size - 1] >= 0 ? " readable" : "");
}

static void late(void)
{
    use_all("late handler");
}

static void early(void)
{
    use_all("early handler");
    printf("early handler: close %s\n", name_of(CALL(camera_close)(camera)));
}

static void told(void *user_data, const char *message, const camlease_holder *holders, size_t count)
{
    (void)user_data, (void)message, (void)holders, (void)count;
    exit(0);
}

static void *take_frames(void *unused)
{
    (void)unused;
    for (int i = 0; i < 20000; i++) {
        camlease_frame *next;
        struct camlease_camera_info info = CAMLEASE_CAMERA_INFO_INIT;
        if (CALL(camera_next_frame)(camera, 0, &next) == CAMLEASE_OK)
            CALL(frame_release)(next);
        CALL(camera_info)(camera, &info);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    const char *how = argv[1];
    if (argc < 4)
        return 2;
    setvbuf(stdout, NULL, _IONBF, 0);
    uri = argv[2];
    library = dlopen("libcamlease.so.0", RTLD_NOW);
    if (!library) {
        fprintf(stderr, "ends: %s\n", dlerror());
        return 3;
    }
    if (atoi(argv[3]))
        CALL(set_shutdown_timeout)((uint32_t)atoi(argv[3]));
    CALL(set_log_callback)(logged, NULL, CAMLEASE_LOG_ERROR);
    if (strcmp(how, "handlers") == 0)
        atexit(early);
    if (strcmp(how, "told") == 0) {
        camlease_open_options options = CAMLEASE_OPEN_OPTIONS_INIT;
        camlease_camera *none;
        options.on_wait = told;
        CALL(camera_open)(uri, &options, &none);
        return 7;
    }
    if (argc > 4)
        hold(argv[4]);
    hold(uri);
    if (strcmp(how, "handlers") == 0)
        atexit(late);
    if (strcmp(how, "shutdown") == 0) {
        printf("shutdown %s\n", name_of(CALL(shutdown)()));
        _exit(0);
    }
    if (strcmp(how, "twice") == 0) {
        camlease_status first = CALL(shutdown)(), second = CALL(shutdown)();
        camlease_camera *other;
        printf("shutdown %s, shutdown %s, open %s\n", name_of(first), name_of(second),
               name_of(CALL(camera_open)(uri, NULL, &other)));
    }
    if (strcmp(how, "contended") == 0) {
        pthread_t threads[4];
        for (int i = 0; i < 4; i++)
            pthread_create(&threads[i], NULL, take_frames, NULL);
        take_frames(NULL); /* in this thread, too: it lives on */
        for (int i = 0; i < 4; i++)
            pthread_join(threads[i], NULL);
        dlclose(library);
        puts(dlopen("libcamlease.so.0", RTLD_NOW | RTLD_NOLOAD) ? "still loaded" : "unloaded");
        library = dlopen("libcamlease.so.0", RTLD_NOW);
        hold(uri);
        puts("free");
        return 0;
    }
    if (strcmp(how, "dlclose") == 0) {
        dlclose(library);
        puts(dlopen("libcamlease.so.0", RTLD_NOW | RTLD_NOLOAD) ? "still loaded" : "unloaded");
        usleep(100000); /* for the thread that hangs: its code must still be there */
        _exit(0);
    }
    return 0;
}
