/* ROS 1: sensor_msgs/Image by image_transport's "raw", which is TCP between processes. The message holds the picture
 * already when the clock starts. Connections have threads of their own: no moment before the wake-up is known. */
#include "participant.h"

#include <image_transport/image_transport.h>
#include <ros/ros.h>
#include <sensor_msgs/Image.h>

static sensor_msgs::ImagePtr picture;
static image_transport::Publisher publisher;

static void publish(participant *self, uint64_t sequence)
{
    mark(picture->data.data(), self->bytes, sequence);
    published(self, sequence);
    publisher.publish(*picture);
}

int main(int argc, char **argv)
{
    participant self;
    bool producer = take_part(&self, argc, argv);
    ros::M_string remappings;
    ros::init(remappings, producer ? "producer" : "reader",
              ros::init_options::AnonymousName | ros::init_options::NoRosout | ros::init_options::NoSigintHandler);
    ros::NodeHandle node;
    image_transport::ImageTransport transport(node);
    if (producer) {
        publisher = transport.advertise("frames", DEPTH);
        picture = boost::make_shared<sensor_msgs::Image>();
        picture->width = self.width;
        picture->height = self.height;
        picture->encoding = "yuv422"; // the field only labels the bytes; ROS has no name for NV12
        picture->step = self.width * 2;
        picture->data.assign(self.bytes, 128);
        produce(&self, publish);
    } else {
        auto frame = [&self](const sensor_msgs::ImageConstPtr &image) {
            if (!received(&self, image->data.data(), image->data.size()))
                ros::shutdown();
        };
        auto hints = image_transport::TransportHints("raw", ros::TransportHints().tcpNoDelay());
        auto subscriber = transport.subscribe("frames", DEPTH, frame, ros::VoidPtr(), hints);
        ros::spin();
    }
    return 0;
}
