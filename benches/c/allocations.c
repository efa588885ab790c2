/* Allocations on the frame path: none, or this fails.
 *
 * allocations FRAMES URI...
 *
 * This program's own malloc and its kin stand before the C library's, for the library as well, and count.
 */
#include "bench.h"

#include <stdatomic.h>

#define WARM_UP 20

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

static atomic_ulong allocations, frees;

void *malloc(size_t size)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_calloc(count, size);
}

void *realloc(void *block, size_t size)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_realloc(block, size);
}

void *memalign(size_t alignment, size_t size)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

int posix_memalign(void **block, size_t alignment, size_t size)
{
    *block = memalign(alignment, size);
    return *block ? 0 : ENOMEM;
}

void free(void *block)
{
    if (block)
        atomic_fetch_add(&frees, 1);
    __libc_free(block);
}

static unsigned long stream(const char *uri, uint32_t drop_policy, unsigned frames)
{
    camlease_stream_options options = CAMLEASE_STREAM_OPTIONS_INIT;
    camlease_camera *camera;
    unsigned long before = atomic_load(&allocations), setting_up, freed, made;
    options.buffers = BUFFERS;
    options.drop_policy = drop_policy;
    must(camlease_camera_open(uri, NULL, &camera), uri);
    must(camlease_camera_start(camera, &options), uri);
    setting_up = atomic_load(&allocations) - before;
    if (setting_up == 0)
        die("%s: opening allocated nothing: the counter does not count", uri);
    freed = made = 0;
    for (unsigned at = 0; at < WARM_UP + frames; at++) {
        camlease_frame_data data = CAMLEASE_FRAME_DATA_INIT;
        camlease_frame *frame;
        if (at == WARM_UP) {
            made = atomic_load(&allocations);
            freed = atomic_load(&frees);
        }
        must(camlease_camera_next_frame(camera, 5000, &frame), uri);
        must(camlease_frame_info(frame, &data), uri);
        must(camlease_frame_release(frame), uri);
    }
    made = atomic_load(&allocations) - made;
    freed = atomic_load(&frees) - freed;
    must(camlease_camera_close(camera), uri);
    printf("%-44s %-9s %7u %12lu %7lu %11lu\n", strlen(uri) > 44 ? uri + strlen(uri) - 44 : uri, drop_policy == CAMLEASE_DROP_OLDEST ? "newest" : "in order", frames,
           made, freed, setting_up);
    return made + freed;
}

int main(int argc, char **argv)
{
    unsigned long found = 0;
    if (argc < 3)
        die("usage: allocations FRAMES URI...");
    printf("%-44s %-9s %7s %12s %7s %11s\n", "camera", "policy", "frames", "allocations", "frees", "for start");
    for (int at = 2; at < argc; at++) {
        found += stream(argv[at], CAMLEASE_DROP_OLDEST, number(argv[1]));
        found += stream(argv[at], CAMLEASE_DROP_NEWEST, number(argv[1]));
    }
    printf("target: 0 allocations on the frame path: %lu, %s\n", found, found ? "missed" : "met");
    return found ? 1 : 0;
}
