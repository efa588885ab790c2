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
static int on_its_way[PICTURES], is_over;
static GstElement *pipeline, *end;

static void given_back(gpointer flag)
{
    __atomic_store_n((int *)flag, 0, __ATOMIC_RELEASE);
}

/* Waits for the pipeline's end or failure, at most so long. True at its end. */
static int has_ended(GstClockTime timeout)
{
    GstBus *bus = gst_element_get_bus(pipeline);
    GstMessage *message = gst_bus_timed_pop_filtered(bus, timeout, GST_MESSAGE_ERROR | GST_MESSAGE_EOS);
    int ended = message && GST_MESSAGE_TYPE(message) == GST_MESSAGE_EOS;
    if (message && !ended) {
        GError *error = NULL;
        gst_message_parse_error(message, &error, NULL);
        die("%s", error->message);
    }
    if (message)
        gst_message_unref(message);
    gst_object_unref(bus);
    return ended;
}

static void publish(struct participant *self, uint64_t sequence)
{
    static unsigned turn;
    unsigned at = turn++ % PICTURES;
    GstBuffer *buffer;
    while (__atomic_load_n(&on_its_way[at], __ATOMIC_ACQUIRE)) {
        has_ended(0);
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

/* In the thread that reads the socket: no other is woken for a frame. */
static GstFlowReturn came(GstAppSink *sink, gpointer self)
{
    GstSample *sample = gst_app_sink_pull_sample(sink);
    GstMapInfo map;
    if (!sample)
        return GST_FLOW_EOS;
    if (!gst_buffer_map(gst_sample_get_buffer(sample), &map, GST_MAP_READ))
        die("a frame that cannot be mapped");
    if (!received((struct participant *)self, map.data, map.size))
        __atomic_store_n(&is_over, 1, __ATOMIC_RELEASE);
    gst_buffer_unmap(gst_sample_get_buffer(sample), &map);
    gst_sample_unref(sample);
    return GST_FLOW_OK;
}

static void read_all(void)
{
    while (!__atomic_load_n(&is_over, __ATOMIC_ACQUIRE) && !has_ended(GST_SECOND / 5))
        ;
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
    if (!producer) {
        GstAppSinkCallbacks callbacks = { .new_sample = came };
        gst_app_sink_set_callbacks(GST_APP_SINK(end), &callbacks, &self, NULL);
    }
    if (gst_element_set_state(pipeline, GST_STATE_PLAYING) == GST_STATE_CHANGE_FAILURE) {
        has_ended(0);
        die("the pipeline does not play");
    }
    if (producer)
        produce(&self, publish);
    else
        read_all();
    gst_element_set_state(pipeline, GST_STATE_NULL);
    return 0;
}
