/* list: the cameras of this machine, whether they are free, and who has them. */
#include <camlease.h>
#include <stdio.h>

static int failed(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, camlease_last_error_message());
    return 1;
}

static const char *state_words(uint32_t state)
{
    switch (state) {
    case CAMLEASE_DEVICE_FREE:
        return "free";
    case CAMLEASE_DEVICE_OPEN:
        return "open, but nobody streams";
    case CAMLEASE_DEVICE_STREAMING:
        return "streaming";
    default:
        return "not known";
    }
}

static int print_holders(const char *uri)
{
    camlease_holder_list *holders = NULL;

    if (camlease_holder_list_new(uri, &holders) != CAMLEASE_OK)
        return failed(uri);
    for (size_t i = 0; i < camlease_holder_list_len(holders); i++) {
        camlease_holder holder = CAMLEASE_HOLDER_INIT;
        if (camlease_holder_list_get(holders, i, &holder) != CAMLEASE_OK)
            continue;
        printf("    %s by pid %d, user %u: %s\n",
               holder.activity == CAMLEASE_ACTIVITY_STREAMING ? "streaming" : "open", (int)holder.pid,
               (unsigned)holder.uid, holder.command);
    }
    size_t unreadable = camlease_holder_list_unreadable(holders);
    if (unreadable > 0)
        printf("    (%zu processes could not be looked at: run it as root to see all holders)\n", unreadable);
    camlease_holder_list_free(holders);
    return 0;
}

int main(int argc, char **argv)
{
    camlease_device_list *devices = NULL;
    int result = 0;

    if (argc > 1) {
        fprintf(stderr, "usage: %s\nLists the cameras of this machine, their states and their holders.\n", argv[0]);
        return 2;
    }
    if (camlease_device_list_new(&devices) != CAMLEASE_OK)
        return failed("listing cameras");
    size_t count = camlease_device_list_len(devices);
    if (count == 0)
        printf("no camera (a virtual one shows up here while somebody holds it: try capture virtual:test picture)\n");
    for (size_t i = 0; i < count; i++) {
        camlease_device_info device = CAMLEASE_DEVICE_INFO_INIT;
        if (camlease_device_list_get(devices, i, &device) != CAMLEASE_OK) {
            result = failed("reading the list");
            break;
        }
        printf("%s: %s, driver %s, %s\n", device.uri, device.name, device.driver[0] ? device.driver : "not known",
               state_words(device.state));
        if (device.serial[0])
            printf("    serial number %s\n", device.serial);
        if (device.bus[0])
            printf("    at %s\n", device.bus);
        if (device.state != CAMLEASE_DEVICE_FREE && print_holders(device.uri) != 0)
            result = 1;
    }
    camlease_device_list_free(devices);
    return result;
}
