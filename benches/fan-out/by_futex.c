/* The floor: a ring of frames in shared memory without any protection, one futex word, all readers waiting on it. With
 * frames of 64 bytes it is a bare futex ping, with whole ones the copy that no contender can do without is in it. */
#include "participant.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>

#define SLOTS (2 * DEPTH)

struct ring {
    uint32_t word;
    uint64_t next; /* frames published so far, the last one of all included */
    uint8_t slots[] __attribute__((aligned(4096)));
};

static struct ring *ring;
static uint8_t *picture;

static void futex(int operation, uint32_t value)
{
    if (syscall(SYS_futex, &ring->word, operation, value, NULL, NULL, 0) < 0 && errno != EAGAIN && errno != EINTR)
        die("futex");
}

static void publish(struct participant *self, uint64_t sequence)
{
    mark(picture, self->bytes, sequence);
    published(self, sequence);
    memcpy(ring->slots + ring->next % SLOTS * self->bytes, picture, self->bytes);
    __atomic_store_n(&ring->next, ring->next + 1, __ATOMIC_RELEASE);
    __atomic_add_fetch(&ring->word, 1, __ATOMIC_SEQ_CST);
    woke(self, sequence);
    futex(FUTEX_WAKE, INT_MAX);
}

static void read_all(struct participant *self)
{
    uint64_t taken = __atomic_load_n(&ring->next, __ATOMIC_ACQUIRE);
    for (;;) {
        uint32_t word = __atomic_load_n(&ring->word, __ATOMIC_SEQ_CST);
        uint64_t next = __atomic_load_n(&ring->next, __ATOMIC_ACQUIRE);
        if (taken == next) {
            futex(FUTEX_WAIT, word);
            continue;
        }
        if (next - taken > DEPTH)
            taken = next - DEPTH;
        if (!received(self, ring->slots + taken++ % SLOTS * self->bytes, self->bytes))
            return;
    }
}

int main(int argc, char **argv)
{
    struct participant self;
    int producer = take_part(&self, argc, argv), fd;
    size_t size = sizeof *ring + SLOTS * self.bytes;
    char path[512];
    snprintf(path, sizeof path, "%s/ring", self.folder);
    fd = open(path, producer ? O_RDWR | O_CREAT | O_EXCL : O_RDWR, 0600);
    if (fd < 0 || (producer && ftruncate(fd, (off_t)size)))
        die("%s", path);
    ring = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (ring == MAP_FAILED)
        die("%s", path);
    if (!producer) {
        read_all(&self);
        return 0;
    }
    picture = malloc(self.bytes);
    if (!picture)
        die("out of memory");
    memset(picture, 128, self.bytes);
    produce(&self, publish);
    return 0;
}
