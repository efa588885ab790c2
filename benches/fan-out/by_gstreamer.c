/* GStreamer: appsrc ! shmsink, shmsrc ! appsink. The sink's own thread copies
 * and wakes, so only the moment before the hand-over to appsrc is known.
 *
 * by_gstreamer ELEMENT     tells the version, and whether it has the element */
#include "participant.h"

#include <gst/app/gstappsink.h>
#include <gst/app/gstappsrc.h>
#include <gst/gst.h>

#define PICTURES 4 /* in private memory, as a driver's buffers are; one that is on its way is not touched */

static uint8_t *pictures[PICTURES];
static int on_its_way[PICTURES];
static GstElement *pipeline, *end;

static void given_back(gpointer flag)
{
    __atomic_store_n((int *)flag, 0, __ATOMIC_RELEASE);
}

static void check_bus(void)
{
    GstBus *bus = gst_element_get_bus(pipeline);
    GstMessage *message = gst_bus_pop_filtered(bus, GST_MESSAGE_ERROR);
    if (message) {
        GError *error = NULL;
        gst_message_parse_error(message, &error, NULL);
        die("%s", error->message);
    }
    gst_object_unref(bus);
}

static void publish(struct participant *self, uint64_t sequence)
{
    static unsigned turn;
    unsigned at = turn++ % PICTURES;
    GstBuffer *buffer;
    while (__atomic_load_n(&on_its_way[at], __ATOMIC_ACQUIRE)) {
        check_bus();
        usleep(50);
    }
    on_its_way[at] = 1;
    mark(pictures[at], self->bytes, sequence);
    published(self, sequence);
    buffer = gst_buffer_new_wrapped_full(GST_MEMORY_FLAG_READONLY, pictures[at], self->bytes, 0, self->bytes,
                                         &on_its_way[at], given_back);
    if (gst_app_src_push_buffer(GST_APP_SRC(end), buffer) != GST_FLOW_OK)
        die("appsrc takes no frame");
}

static void read_all(struct participant *self)
{
    for (;;) {
        GstSample *sample = gst_app_sink_try_pull_sample(GST_APP_SINK(end), 2 * GST_SECOND);
        GstMapInfo map;
        int more;
        if (!sample) {
            check_bus();
            if (gst_app_sink_is_eos(GST_APP_SINK(end)))
                return;
            continue;
        }
        if (!gst_buffer_map(gst_sample_get_buffer(sample), &map, GST_MAP_READ))
            die("a frame that cannot be mapped");
        more = received(self, map.data, map.size);
        gst_buffer_unmap(gst_sample_get_buffer(sample), &map);
        gst_sample_unref(sample);
        if (!more)
            return;
    }
}

/* "VERSION yes" if the installed version has that element, else "VERSION no". */
static void tell_of(const char *element)
{
    unsigned major, minor, micro, nano;
    GstElementFactory *factory = gst_element_factory_find(element);
    gst_version(&major, &minor, &micro, &nano);
    printf("%u.%u.%u %s\n", major, minor, micro, factory ? "yes" : "no");
}

int main(int argc, char **argv)
{
    struct participant self;
    int producer;
    const char *format;
    char text[1024];
    GError *error = NULL;
    gst_init(NULL, NULL);
    if (argc == 2) {
        tell_of(argv[1]);
        return 0;
    }
    producer = take_part(&self, argc, argv);
    format = strcmp(self.format, "YUYV") ? self.format : "YUY2";
    if (producer)
        snprintf(text, sizeof text,
                 "appsrc name=end format=time is-live=true do-timestamp=true block=true max-buffers=1 "
                 "caps=video/x-raw,format=%s,width=%u,height=%u,framerate=%u/1 ! "
                 "shmsink socket-path=%s/socket shm-size=%zu wait-for-connection=false sync=false async=false",
                 format, self.width, self.height, self.fps, self.folder, 2 * DEPTH * self.bytes + (1 << 20));
    else
        snprintf(text, sizeof text,
                 "shmsrc socket-path=%s/socket is-live=true ! "
                 "video/x-raw,format=%s,width=%u,height=%u,framerate=%u/1 ! "
                 "appsink name=end sync=false async=false max-buffers=%u drop=true",
                 self.folder, format, self.width, self.height, self.fps, DEPTH);
    pipeline = gst_parse_launch(text, &error);
    if (!pipeline || error)
        die("%s", error ? error->message : "no pipeline");
    end = gst_bin_get_by_name(GST_BIN(pipeline), "end");
    for (int at = 0; producer && at < PICTURES; at++) {
        pictures[at] = malloc(self.bytes);
        if (!pictures[at])
            die("out of memory");
        memset(pictures[at], 128, self.bytes);
    }
    if (gst_element_set_state(pipeline, GST_STATE_PLAYING) == GST_STATE_CHANGE_FAILURE) {
        check_bus();
        die("the pipeline does not play");
    }
    if (producer)
        produce(&self, publish);
    else
        read_all(&self);
    gst_element_set_state(pipeline, GST_STATE_NULL);
    return 0;
}
