/* two_cameras: two cameras in one poll loop, without threads. */
#define _POSIX_C_SOURCE 200809L
#include <camlease.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#define CAMERAS 2

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1; /* poll returns with EINTR, and the loop looks at this */
}

static int failed(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, camlease_last_error_message());
    return 1;
}

/* Opens and starts one camera, and tells the descriptor to poll. */
static int begin(const char *uri, camlease_camera **camera, int *descriptor)
{
    int32_t number = -1;

    if (camlease_camera_open(uri, NULL, camera) != CAMLEASE_OK || camlease_camera_start(*camera, NULL) != CAMLEASE_OK ||
        camlease_camera_fd(*camera, &number) != CAMLEASE_OK)
        return failed(uri);
    *descriptor = number;
    return 0;
}

/* Takes the frame that poll told of. A descriptor may be readable with no frame there: that is no failure. */
static int take(const char *uri, camlease_camera *camera, unsigned long *count)
{
    camlease_frame *frame = NULL;
    camlease_frame_data data = CAMLEASE_FRAME_DATA_INIT;
    camlease_status status = camlease_camera_next_frame(camera, 0, &frame);

    if (status == CAMLEASE_TIMEOUT)
        return 0;
    if (status != CAMLEASE_OK)
        return failed(uri);
    if (camlease_frame_info(frame, &data) == CAMLEASE_OK)
        printf("%s: frame %llu at %.3f s, %zu bytes%s\n", uri, (unsigned long long)data.sequence,
               (double)data.timestamp_ns / 1e9, data.size, data.flags & CAMLEASE_FRAME_CORRUPT ? ", damaged" : "");
    camlease_frame_release(frame);
    ++*count;
    return 0;
}

static int run(char **uris, camlease_camera **cameras, unsigned long most)
{
    struct pollfd watched[CAMERAS];
    unsigned long counts[CAMERAS] = {0};

    for (int i = 0; i < CAMERAS; i++) {
        watched[i].events = POLLIN;
        if (begin(uris[i], &cameras[i], &watched[i].fd) != 0)
            return 1;
    }
    while (!interrupted && (most == 0 || counts[0] < most || counts[1] < most)) {
        int ready = poll(watched, CAMERAS, 5000);
        if (ready == 0)
            fprintf(stderr, "no frame from either camera for 5 s\n");
        if (ready == -1 && errno != EINTR) {
            perror("poll");
            return 1;
        }
        for (int i = 0; i < CAMERAS; i++)
            if (ready > 0 && watched[i].revents != 0 && take(uris[i], cameras[i], &counts[i]) != 0)
                return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
    camlease_camera *cameras[CAMERAS] = {NULL};

    if (argc < 3 || argc > 4) {
        fprintf(stderr, "usage: %s CAMERA CAMERA [FRAMES]\nStreams from two cameras until each gave FRAMES frames.\n",
                argv[0]);
        return 2;
    }
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    int result = run(argv + 1, cameras, argc == 4 ? strtoul(argv[3], NULL, 10) : 0);
    for (int i = 0; i < CAMERAS; i++)
        if (cameras[i])
            camlease_camera_close(cameras[i]);
    return result;
}
