/* A program outside the project: built against the installed library, it opens a camera and takes a frame.
 * build: not here */
#include <camlease.h>

#include <stdio.h>
#include <string.h>

int main(void)
{
    camlease_camera *camera = NULL;
    camlease_frame *frame = NULL;
    camlease_frame_data data = CAMLEASE_FRAME_DATA_INIT;

    if (camlease_version() != (CAMLEASE_VERSION_MAJOR << 16 | CAMLEASE_VERSION_MINOR << 8 | CAMLEASE_VERSION_PATCH)) {
        printf("the header's version is not the library's, %s\n", camlease_version_string());
        return 1;
    }
    if (camlease_camera_open("virtual:face-installed?width=64&height=48&fourcc=GREY", NULL, &camera) != CAMLEASE_OK ||
        camlease_camera_start(camera, NULL) != CAMLEASE_OK ||
        camlease_camera_next_frame(camera, 5000, &frame) != CAMLEASE_OK ||
        camlease_frame_info(frame, &data) != CAMLEASE_OK) {
        printf("%s\n", camlease_last_error_message());
        return 1;
    }
    uint64_t sequence;
    memcpy(&sequence, data.data, sizeof sequence);
    int good = data.width == 64 && data.height == 48 && data.size == 64 * 48 && sequence == data.sequence;
    camlease_frame_release(frame);
    camlease_camera_close(camera);
    printf(good ? "good\n" : "not the picture that was asked for\n");
    return good ? 0 : 1;
}
