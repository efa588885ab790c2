/* Who has a camera: "PID" for each holder in a line of its own, then "unreadable N".
 *
 * who URI
 */
#include <stdio.h>

#include "camlease.h"

int main(int argc, char **argv)
{
    camlease_holder_list *list;
    if (argc != 2 || camlease_holder_list_new(argv[1], &list) != CAMLEASE_OK) {
        fprintf(stderr, "who URI: %s\n", camlease_last_error_message());
        return 1;
    }
    for (size_t at = 0; at < camlease_holder_list_len(list); at++) {
        camlease_holder holder = CAMLEASE_HOLDER_INIT;
        if (camlease_holder_list_get(list, at, &holder) != CAMLEASE_OK)
            return 1;
        printf("%d\n", (int)holder.pid);
    }
    printf("unreadable %zu\n", camlease_holder_list_unreadable(list));
    return camlease_holder_list_free(list) == CAMLEASE_OK ? 0 : 1;
}
