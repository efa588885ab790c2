/* Any integer may stand where the header names values: the answer is a status, never a crash.
 * build: not here */
#include <camlease.h>

#include <limits.h>
#include <stdio.h>
#include <string.h>

static int failures;

static void expect(camlease_status got, camlease_status wanted, const char *what, long long value)
{
    if (got == wanted)
        return;
    failures++;
    printf("%s %lld: %s instead of %s: %s\n", what, value, camlease_status_name(got), camlease_status_name(wanted),
           camlease_last_error_message());
}

static const uint32_t odd[] = {3, 7, 99, 255, 256, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};
#define ODD (sizeof odd / sizeof odd[0])

static camlease_status open_with(camlease_open_options *options)
{
    camlease_camera *camera = NULL;
    camlease_status status = camlease_camera_open("virtual:face-numbers", options, &camera);

    if (status == CAMLEASE_OK)
        camlease_camera_close(camera);
    else if (camera)
        failures++, printf("a failed open left a handle\n");
    return status;
}

static void opening(void)
{
    for (size_t i = 0; i < ODD; i++) {
        camlease_open_options options = CAMLEASE_OPEN_OPTIONS_INIT;
        options.on_busy = odd[i];
        expect(open_with(&options), CAMLEASE_INVALID_ARGUMENT, "on_busy", odd[i]);
        options.on_busy = CAMLEASE_ON_BUSY_WAIT;
        options.flags = odd[i] | 4u;
        expect(open_with(&options), CAMLEASE_INVALID_ARGUMENT, "flags", odd[i]);
    }
    for (uint32_t on_busy = CAMLEASE_ON_BUSY_ASK; on_busy <= CAMLEASE_ON_BUSY_EVICT; on_busy++) {
        camlease_open_options options = CAMLEASE_OPEN_OPTIONS_INIT;
        options.on_busy = on_busy;
        expect(open_with(&options), CAMLEASE_OK, "on_busy", on_busy);
        options.grace_ms = -1;
        expect(open_with(&options), CAMLEASE_INVALID_ARGUMENT, "grace_ms", -1);
    }
    static const int32_t times[] = {-2, -1000, INT32_MIN};
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        camlease_open_options options = CAMLEASE_OPEN_OPTIONS_INIT;
        options.timeout_ms = times[i];
        expect(open_with(&options), CAMLEASE_INVALID_ARGUMENT, "timeout_ms", times[i]);
    }
    static const int32_t priorities[] = {INT32_MIN, -1, 1, INT32_MAX};
    for (size_t i = 0; i < sizeof priorities / sizeof priorities[0]; i++) {
        camlease_open_options options = CAMLEASE_OPEN_OPTIONS_INIT;
        options.priority = priorities[i];
        expect(open_with(&options), CAMLEASE_OK, "priority", priorities[i]);
    }
    static const size_t sizes[] = {0, 1, 7, 4097, SIZE_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        camlease_open_options options = CAMLEASE_OPEN_OPTIONS_INIT;
        options.struct_size = sizes[i];
        expect(open_with(&options), CAMLEASE_INVALID_ARGUMENT, "struct_size", (long long)sizes[i]);
    }
}

/* A struct of a later version: the known part, and what this library does not know. */
static void growing(void)
{
    struct {
        camlease_open_options known;
        uint64_t later[4];
    } options;

    memset(&options, 0, sizeof options);
    options.known.struct_size = sizeof options;
    expect(open_with(&options.known), CAMLEASE_OK, "zeroes in a later member", 0);
    options.later[3] = 1;
    expect(open_with(&options.known), CAMLEASE_INVALID_ARGUMENT, "a later member", 1);
    options.known.struct_size = offsetof(camlease_open_options, flags);
    expect(open_with(&options.known), CAMLEASE_OK, "an earlier version's size", (long long)options.known.struct_size);
}

static void streaming(camlease_camera *camera)
{
    for (size_t i = 0; i < ODD; i++) {
        camlease_stream_options options = CAMLEASE_STREAM_OPTIONS_INIT;
        options.drop_policy = odd[i];
        expect(camlease_camera_start(camera, &options), CAMLEASE_INVALID_ARGUMENT, "drop_policy", odd[i]);
        options.drop_policy = CAMLEASE_DROP_OLDEST;
        options.fourcc = odd[i];
        expect(camlease_camera_start(camera, &options), CAMLEASE_UNSUPPORTED, "fourcc", odd[i]);
        options.fourcc = 0;
        options.fps_numerator = odd[i];
        expect(camlease_camera_start(camera, &options), CAMLEASE_INVALID_ARGUMENT, "fps_numerator over 0", odd[i]);
        if (odd[i] > 32) {
            options.fps_numerator = 0;
            options.buffers = odd[i];
            expect(camlease_camera_start(camera, &options), CAMLEASE_INVALID_ARGUMENT, "buffers", odd[i]);
        }
    }
    expect(camlease_camera_start(camera, NULL), CAMLEASE_OK, "start", 0);
    static const int32_t times[] = {-2, INT32_MIN};
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        camlease_frame *frame = NULL;
        expect(camlease_camera_next_frame(camera, times[i], &frame), CAMLEASE_INVALID_ARGUMENT, "timeout_ms", times[i]);
    }
}

static void lists_and_controls(camlease_camera *camera)
{
    camlease_control_list *controls = NULL;
    camlease_format_list *formats = NULL;
    int64_t value = 0;

    for (size_t i = 0; i < ODD; i++) {
        expect(camlease_camera_get_control(camera, odd[i], &value), CAMLEASE_INVALID_ARGUMENT, "control", odd[i]);
        expect(camlease_camera_set_control(camera, odd[i], INT64_MIN), CAMLEASE_INVALID_ARGUMENT, "control", odd[i]);
    }
    expect(camlease_control_list_new(camera, &controls), CAMLEASE_OK, "controls", 0);
    expect(camlease_format_list_new(camera, &formats), CAMLEASE_OK, "formats", 0);
    static const size_t indices[] = {1000, SIZE_MAX / 2, SIZE_MAX};
    for (size_t i = 0; i < sizeof indices / sizeof indices[0]; i++) {
        camlease_control_info control = CAMLEASE_CONTROL_INFO_INIT;
        camlease_format_info format = CAMLEASE_FORMAT_INFO_INIT;
        const char *name = NULL;
        long long index = (long long)indices[i];
        expect(camlease_control_list_get(controls, indices[i], &control), CAMLEASE_INVALID_ARGUMENT, "index", index);
        expect(camlease_format_list_get(formats, indices[i], &format), CAMLEASE_INVALID_ARGUMENT, "index", index);
        expect(camlease_control_list_menu(controls, 0, indices[i], &value, &name), CAMLEASE_INVALID_ARGUMENT, "item",
               index);
    }
    camlease_control_list_free(controls);
    camlease_format_list_free(formats);
}

static void no_log(void *user_data, uint32_t level, const char *message)
{
    (void)user_data, (void)level, (void)message;
}

int main(void)
{
    camlease_camera *camera = NULL;

    opening();
    growing();
    expect(camlease_camera_open("virtual:face-numbers", NULL, &camera), CAMLEASE_OK, "open", 0);
    streaming(camera);
    lists_and_controls(camera);
    expect(camlease_camera_close(camera), CAMLEASE_OK, "close", 0);
    expect(camlease_set_log_callback(no_log, NULL, 0), CAMLEASE_INVALID_ARGUMENT, "log level", 0);
    for (size_t i = 0; i < ODD; i++) {
        if (odd[i] > CAMLEASE_LOG_DEBUG)
            expect(camlease_set_log_callback(no_log, NULL, odd[i]), CAMLEASE_INVALID_ARGUMENT, "log level", odd[i]);
        if (odd[i] > CAMLEASE_CLOSED && odd[i] != CAMLEASE_INTERNAL &&
            strcmp(camlease_status_name(odd[i]), "CAMLEASE_UNKNOWN") != 0)
            failures++, printf("status %u has a name\n", (unsigned)odd[i]);
    }
    expect(camlease_camera_start(NULL, NULL), CAMLEASE_INVALID_HANDLE, "NULL", 0);
    expect(camlease_camera_open(NULL, NULL, &camera), CAMLEASE_INVALID_ARGUMENT, "a name that is NULL", 0);
    expect(camlease_camera_open("virtual:x", NULL, NULL), CAMLEASE_INVALID_ARGUMENT, "an output that is NULL", 0);
    return failures == 0 ? 0 : 1;
}
