/* Saving a frame as a picture that any viewer opens. */
#ifndef PICTURE_H
#define PICTURE_H

#include <camlease.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether picture_save() can write frames of this pixel format. */
bool picture_knows(uint32_t fourcc);

/* Writes PREFIX.ppm, or PREFIX.jpg for Motion JPEG, and tells the file's name.
 * Returns NULL, or what went wrong, in words. */
const char *picture_save(const struct camlease_frame_data *frame, const char *prefix, char *name, size_t name_size);

#endif
