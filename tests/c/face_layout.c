/* Where each member of each struct is, which programs outside were compiled with, and what the initialisers set.
 * Compiled as C11 and as C++11.
 * build: not here */
#include <camlease.h>

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifdef __cplusplus
#define CHECK(what) static_assert(what, #what)
#else
#define CHECK(what) _Static_assert(what, #what)
#endif
#define AT(type, member, offset) CHECK(offsetof(struct camlease_##type, member) == (offset))
#define WIDE(type, member, bytes) CHECK(sizeof(((struct camlease_##type *)0)->member) == (bytes))
#define SIZE(type, bytes) CHECK(sizeof(struct camlease_##type) == (bytes))

/* 64-bit Linux, x86-64 and aarch64 alike. */
CHECK(sizeof(void *) == 8);
CHECK(sizeof(camlease_status) == 4);

SIZE(open_options, 88);
AT(open_options, struct_size, 0);
AT(open_options, timeout_ms, 8);
AT(open_options, on_busy, 12);
AT(open_options, priority, 16);
AT(open_options, name, 24);
AT(open_options, flags, 32);
AT(open_options, on_wait, 40);
AT(open_options, user_data, 48);
AT(open_options, cancel, 56);
AT(open_options, on_ask, 64);
AT(open_options, grace_ms, 72);
WIDE(open_options, struct_size, 8);
WIDE(open_options, timeout_ms, 4);
WIDE(open_options, on_busy, 4);
WIDE(open_options, priority, 4);
WIDE(open_options, flags, 4);
WIDE(open_options, grace_ms, 4);
AT(open_options, reserved, 76); /* padding before there was an access */
AT(open_options, access, 80);
WIDE(open_options, access, 4);

SIZE(asker, 40);
AT(asker, struct_size, 0);
AT(asker, pid, 8);
AT(asker, uid, 12);
AT(asker, priority, 16);
AT(asker, must, 20);
AT(asker, grace_ms, 24);
AT(asker, name, 32);
WIDE(asker, grace_ms, 8);

SIZE(stream_options, 48);
AT(stream_options, struct_size, 0);
AT(stream_options, width, 8);
AT(stream_options, height, 12);
AT(stream_options, fourcc, 16);
AT(stream_options, fps_numerator, 20);
AT(stream_options, fps_denominator, 24);
AT(stream_options, buffers, 28);
AT(stream_options, drop_policy, 32);
AT(stream_options, max_bytes, 40);
WIDE(stream_options, drop_policy, 4);
WIDE(stream_options, max_bytes, 8);

SIZE(reset_options, 16);
AT(reset_options, struct_size, 0);
AT(reset_options, timeout_ms, 8);
WIDE(reset_options, timeout_ms, 4);

SIZE(camera_info, 104);
AT(camera_info, struct_size, 0);
AT(camera_info, uri, 8);
AT(camera_info, name, 16);
AT(camera_info, driver, 24);
AT(camera_info, serial, 32);
AT(camera_info, bus, 40);
AT(camera_info, state, 48);
AT(camera_info, width, 52);
AT(camera_info, height, 56);
AT(camera_info, fourcc, 60);
AT(camera_info, stride, 64);
AT(camera_info, fps_numerator, 68);
AT(camera_info, fps_denominator, 72);
AT(camera_info, buffers, 76);
AT(camera_info, planes, 80);
AT(camera_info, buffer_bytes, 88);
AT(camera_info, last_exit, 96);
AT(camera_info, priority, 100);
WIDE(camera_info, planes, 4);
WIDE(camera_info, buffer_bytes, 8);

SIZE(camera_stats, 96);
AT(camera_stats, struct_size, 0);
AT(camera_stats, frames, 8);
AT(camera_stats, dropped, 16);
AT(camera_stats, corrupt, 24);
AT(camera_stats, open_attempts, 32);
AT(camera_stats, busy_wait_ns, 40);
AT(camera_stats, resets, 48);
AT(camera_stats, stalls, 56);
AT(camera_stats, reconnects, 64);
AT(camera_stats, frames_out, 72);
AT(camera_stats, bytes_out, 80);
WIDE(camera_stats, bytes_out, 8);
AT(camera_stats, behind, 88);
WIDE(camera_stats, behind, 8);

SIZE(plane, 24);
AT(plane, data, 0);
AT(plane, size, 8);
AT(plane, stride, 16);
WIDE(plane, stride, 4);

SIZE(frame_data, 160);
AT(frame_data, struct_size, 0);
AT(frame_data, data, 8);
AT(frame_data, size, 16);
AT(frame_data, width, 24);
AT(frame_data, height, 28);
AT(frame_data, fourcc, 32);
AT(frame_data, stride, 36);
AT(frame_data, sequence, 40);
AT(frame_data, timestamp_ns, 48);
AT(frame_data, flags, 56);
AT(frame_data, planes, 60);
AT(frame_data, plane, 64);
WIDE(frame_data, timestamp_ns, 8);
WIDE(frame_data, plane, 4 * 24);

SIZE(device_info, 56);
AT(device_info, struct_size, 0);
AT(device_info, uri, 8);
AT(device_info, name, 16);
AT(device_info, driver, 24);
AT(device_info, serial, 32);
AT(device_info, bus, 40);
AT(device_info, state, 48);
WIDE(device_info, state, 4);

SIZE(holder, 88);
AT(holder, struct_size, 0);
AT(holder, pid, 8);
AT(holder, uid, 12);
AT(holder, start_time, 16);
AT(holder, activity, 24);
AT(holder, command, 32);
AT(holder, name, 40);
AT(holder, outcome, 48);
WIDE(holder, start_time, 8);
WIDE(holder, outcome, 4);
AT(holder, reason, 56);
AT(holder, condition, 64);
AT(holder, priority, 68);
AT(holder, since_ns, 72);
WIDE(holder, condition, 4);
WIDE(holder, priority, 4);
WIDE(holder, since_ns, 8);
AT(holder, share, 80);

SIZE(share_options, 56);
AT(share_options, struct_size, 0);
AT(share_options, name, 8);
AT(share_options, readers, 16);
AT(share_options, readers_group, 20);
AT(share_options, commanders, 24);
AT(share_options, commanders_group, 28);
AT(share_options, start, 32);
AT(share_options, history, 36);
AT(share_options, max_bytes, 40);
AT(share_options, stream, 48);
WIDE(share_options, readers_group, 4);
WIDE(share_options, history, 4);
WIDE(share_options, max_bytes, 8);

SIZE(evict_options, 32);
AT(evict_options, struct_size, 0);
AT(evict_options, flags, 8);
AT(evict_options, grace_ms, 12);
AT(evict_options, name, 16);
AT(evict_options, cancel, 24);
WIDE(evict_options, flags, 4);
WIDE(evict_options, grace_ms, 4);

SIZE(format_info, 64);
AT(format_info, struct_size, 0);
AT(format_info, fourcc, 8);
AT(format_info, flags, 12);
AT(format_info, description, 16);
AT(format_info, min_width, 24);
AT(format_info, max_width, 28);
AT(format_info, step_width, 32);
AT(format_info, min_height, 36);
AT(format_info, max_height, 40);
AT(format_info, step_height, 44);
AT(format_info, min_fps_numerator, 48);
AT(format_info, min_fps_denominator, 52);
AT(format_info, max_fps_numerator, 56);
AT(format_info, max_fps_denominator, 60);
WIDE(format_info, max_fps_denominator, 4);

SIZE(control_info, 64);
AT(control_info, struct_size, 0);
AT(control_info, id, 8);
AT(control_info, kind, 12);
AT(control_info, name, 16);
AT(control_info, minimum, 24);
AT(control_info, maximum, 32);
AT(control_info, step, 40);
AT(control_info, default_value, 48);
AT(control_info, flags, 56);
AT(control_info, menu_len, 60);
WIDE(control_info, default_value, 8);
WIDE(control_info, menu_len, 4);

/* Values that programs outside were compiled with. */
CHECK(CAMLEASE_OK == 0 && CAMLEASE_INVALID_ARGUMENT == 1 && CAMLEASE_INVALID_HANDLE == 2 && CAMLEASE_NOT_FOUND == 3);
CHECK(CAMLEASE_BUSY == 4 && CAMLEASE_TIMEOUT == 5 && CAMLEASE_DISCONNECTED == 6 && CAMLEASE_PERMISSION == 7);
CHECK(CAMLEASE_UNSUPPORTED == 8 && CAMLEASE_WRONG_STATE == 9 && CAMLEASE_IO == 10 && CAMLEASE_NO_BANDWIDTH == 11);
CHECK(CAMLEASE_BUDGET == 12 && CAMLEASE_EVICTED == 13 && CAMLEASE_FORKED == 14 && CAMLEASE_SHUT_DOWN == 15);
CHECK(CAMLEASE_STALLED == 16 && CAMLEASE_CLOSED == 17 && CAMLEASE_INTERNAL == 255);
CHECK(CAMLEASE_ON_BUSY_WAIT == 0 && CAMLEASE_ON_BUSY_ASK == 1 && CAMLEASE_ON_BUSY_EVICT == 2);
CHECK(CAMLEASE_ANSWER_BY_PRIORITY == 0 && CAMLEASE_ANSWER_YIELD == 1);
CHECK(CAMLEASE_EXIT_CLEAN == 0 && CAMLEASE_EXIT_DIED == 1 && CAMLEASE_EXIT_DIRTY == 2);
CHECK(CAMLEASE_OPEN_WAIT_FOR_DEVICE == 1 && CAMLEASE_OPEN_RESET_AFTER_DIRTY_EXIT == 2);
CHECK(CAMLEASE_ACCESS_EXCLUSIVE == 0 && CAMLEASE_ACCESS_SHARED == 1 && CAMLEASE_ACCESS_MONITOR == 2);
CHECK(CAMLEASE_ALLOWED_OWNER == 0 && CAMLEASE_ALLOWED_GROUP == 1 && CAMLEASE_ALLOWED_EVERYONE == 2);
CHECK(CAMLEASE_SHARE_ON_DEMAND == 0 && CAMLEASE_SHARE_ALWAYS == 1);
CHECK(CAMLEASE_DROP_OLDEST == 0 && CAMLEASE_DROP_NEWEST == 1 && CAMLEASE_FRAME_CORRUPT == 1);
CHECK(CAMLEASE_DEVICE_FREE == 0 && CAMLEASE_DEVICE_OPEN == 1 && CAMLEASE_DEVICE_STREAMING == 2);
CHECK(CAMLEASE_DEVICE_UNKNOWN == 3 && CAMLEASE_ACTIVITY_OPEN == 1 && CAMLEASE_ACTIVITY_STREAMING == 2);
CHECK(CAMLEASE_OUTCOME_NONE == 0 && CAMLEASE_OUTCOME_YIELDED == 1 && CAMLEASE_OUTCOME_TERMINATED == 2);
CHECK(CAMLEASE_OUTCOME_KILLED == 3 && CAMLEASE_OUTCOME_REFUSED == 4 && CAMLEASE_OUTCOME_SURVIVED == 5);
CHECK(CAMLEASE_CONDITION_ALIVE == 0 && CAMLEASE_CONDITION_STOPPED == 1 && CAMLEASE_CONDITION_STUCK == 2);
CHECK(CAMLEASE_CONDITION_ZOMBIE == 3 && CAMLEASE_EVICT_DRY_RUN == 1);
CHECK(CAMLEASE_FOURCC('Y', 'U', 'Y', 'V') == 0x56595559);

/* Names without "struct" work but for the two that are calls as well. */
static camlease_open_options opening = CAMLEASE_OPEN_OPTIONS_INIT;
static camlease_stream_options streaming = CAMLEASE_STREAM_OPTIONS_INIT;
static camlease_reset_options resetting = CAMLEASE_RESET_OPTIONS_INIT;
static camlease_frame_data frame = CAMLEASE_FRAME_DATA_INIT;
static camlease_device_info device = CAMLEASE_DEVICE_INFO_INIT;
static camlease_holder holder = CAMLEASE_HOLDER_INIT;
static camlease_share_options sharing = CAMLEASE_SHARE_OPTIONS_INIT;
static camlease_evict_options evicting = CAMLEASE_EVICT_OPTIONS_INIT;
static camlease_format_info format = CAMLEASE_FORMAT_INFO_INIT;
static camlease_control_info control = CAMLEASE_CONTROL_INFO_INIT;
static struct camlease_camera_info info = CAMLEASE_CAMERA_INFO_INIT;
static struct camlease_camera_stats stats = CAMLEASE_CAMERA_STATS_INIT;

/* Whether only the size is set, and all else is 0. */
static int plain(const void *at, size_t size)
{
    unsigned char zeroes[sizeof frame] = {0};
    size_t told;

    memcpy(&told, at, sizeof told);
    return told == size && memcmp((const unsigned char *)at + sizeof told, zeroes, size - sizeof told) == 0;
}

/* Programs that were compiled before members were added pass what they know, with anything in the padding at its end. */
static void former_sizes_are_taken(void)
{
    camlease_open_options options = CAMLEASE_OPEN_OPTIONS_INIT;
    camlease_camera *camera = NULL;
    char uri[64];

    snprintf(uri, sizeof uri, "virtual:face-layout-%d", (int)getpid());
    options.struct_size = 80;
    memset((char *)&options + 76, 0xa5, 4);
    options.access = 77; /* beyond what this program tells that it has */
    assert(camlease_camera_open(uri, &options, &camera) == CAMLEASE_OK);
    assert(camlease_camera_close(camera) == CAMLEASE_OK);
    options.struct_size = sizeof options;
    assert(camlease_camera_open(uri, &options, &camera) == CAMLEASE_INVALID_ARGUMENT && !camera);
}

int main(void)
{
    assert(opening.struct_size == sizeof opening);
    assert(opening.timeout_ms == 5000 && opening.on_busy == CAMLEASE_ON_BUSY_WAIT && opening.priority == 0);
    assert(!opening.name && opening.flags == 0 && !opening.on_wait && !opening.user_data && !opening.cancel);
    assert(resetting.struct_size == sizeof resetting && resetting.timeout_ms == 10000);
    assert(!opening.on_ask && opening.grace_ms == 0 && opening.access == CAMLEASE_ACCESS_EXCLUSIVE);
    assert(plain(&sharing, sizeof sharing));
    assert(evicting.struct_size == sizeof evicting && evicting.grace_ms == 2000);
    assert(evicting.flags == 0 && !evicting.name && !evicting.cancel);
    assert(streaming.drop_policy == CAMLEASE_DROP_OLDEST);
    assert(plain(&streaming, sizeof streaming) && plain(&frame, sizeof frame) && plain(&device, sizeof device));
    assert(plain(&holder, sizeof holder) && plain(&format, sizeof format) && plain(&control, sizeof control));
    assert(plain(&info, sizeof info) && plain(&stats, sizeof stats));
    former_sizes_are_taken();
    assert(camlease_version() ==
           (CAMLEASE_VERSION_MAJOR << 16 | CAMLEASE_VERSION_MINOR << 8 | CAMLEASE_VERSION_PATCH));
    return 0;
}
