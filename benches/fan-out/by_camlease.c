/* A reader of camlease, over the C interface: `shared:NAME` like any camera, all frames in order. */
#include "participant.h"

#include "camlease.h"

static void must(camlease_status status, const char *what)
{
    if (status != CAMLEASE_OK)
        die("%s: %s: %s", what, camlease_status_name(status), camlease_last_error_message());
}

int main(int argc, char **argv)
{
    camlease_stream_options options = CAMLEASE_STREAM_OPTIONS_INIT;
    camlease_camera *camera;
    struct participant self;
    char uri[128];
    int more = 1;
    if (take_part(&self, argc, argv))
        die("the producer is a program of its own");
    options.buffers = 1; /* one at a time */
    options.drop_policy = CAMLEASE_DROP_NEWEST;
    snprintf(uri, sizeof uri, "shared:%s", strrchr(self.folder, '/') + 1);
    must(camlease_camera_open(uri, NULL, &camera), "open");
    must(camlease_camera_start(camera, &options), "start");
    while (more) {
        camlease_frame_data data = CAMLEASE_FRAME_DATA_INIT;
        camlease_frame *frame;
        camlease_status status = camlease_camera_next_frame(camera, 5000, &frame);
        if (status == CAMLEASE_DISCONNECTED)
            break;
        must(status, "next_frame");
        must(camlease_frame_info(frame, &data), "frame_info");
        more = received(&self, data.data, data.size);
        must(camlease_frame_release(frame), "frame_release");
    }
    must(camlease_camera_close(camera), "close");
    return 0;
}
