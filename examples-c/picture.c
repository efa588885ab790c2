/* Saving a frame as a picture: Motion JPEG as it is, the raw formats that most cameras have as PPM. */
#include "picture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define YUYV CAMLEASE_FOURCC('Y', 'U', 'Y', 'V')
#define UYVY CAMLEASE_FOURCC('U', 'Y', 'V', 'Y')
#define NV12 CAMLEASE_FOURCC('N', 'V', '1', '2')
#define YU12 CAMLEASE_FOURCC('Y', 'U', '1', '2')
#define GREY CAMLEASE_FOURCC('G', 'R', 'E', 'Y')
#define RGB3 CAMLEASE_FOURCC('R', 'G', 'B', '3')
#define BGR3 CAMLEASE_FOURCC('B', 'G', 'R', '3')
#define MJPG CAMLEASE_FOURCC('M', 'J', 'P', 'G')
#define JPEG CAMLEASE_FOURCC('J', 'P', 'E', 'G')

bool picture_knows(uint32_t fourcc)
{
    return fourcc == YUYV || fourcc == UYVY || fourcc == NV12 || fourcc == YU12 || fourcc == GREY || fourcc == RGB3 ||
           fourcc == BGR3 || fourcc == MJPG || fourcc == JPEG;
}

/* Bytes that a whole frame has. A damaged one may have fewer, and must not be read beyond its end. */
static size_t whole(const struct camlease_frame_data *frame)
{
    size_t luma = (size_t)frame->stride * frame->height;
    size_t half_height = ((size_t)frame->height + 1) / 2;

    if (frame->fourcc == NV12)
        return luma + frame->stride * half_height;
    if (frame->fourcc == YU12)
        return luma + 2 * (((size_t)frame->stride + 1) / 2 * half_height);
    return luma;
}

/* Bytes of a line without what the driver pads it with. */
static size_t line(const struct camlease_frame_data *frame)
{
    size_t width = frame->width;

    if (frame->fourcc == YUYV || frame->fourcc == UYVY)
        return (width + 1) / 2 * 4;
    if (frame->fourcc == RGB3 || frame->fourcc == BGR3)
        return width * 3;
    if (frame->fourcc == NV12)
        return (width + 1) / 2 * 2;
    return width;
}

static uint8_t clamp(int value)
{
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* BT.601 in studio range, which is what cameras send. */
static void yuv_to_rgb(int y, int cb, int cr, uint8_t *rgb)
{
    y = 298 * (y - 16) + 128;
    cb -= 128;
    cr -= 128;
    rgb[0] = clamp((y + 409 * cr) / 256);
    rgb[1] = clamp((y - 100 * cb - 208 * cr) / 256);
    rgb[2] = clamp((y + 516 * cb) / 256);
}

static void pixel(const struct camlease_frame_data *frame, size_t x, size_t y, uint8_t *rgb)
{
    size_t stride = frame->stride, height = frame->height;
    const uint8_t *row = frame->data + y * stride;

    if (frame->fourcc == YUYV) {
        const uint8_t *pair = row + x / 2 * 4;
        yuv_to_rgb(row[2 * x], pair[1], pair[3], rgb);
    } else if (frame->fourcc == UYVY) {
        const uint8_t *pair = row + x / 2 * 4;
        yuv_to_rgb(row[2 * x + 1], pair[0], pair[2], rgb);
    } else if (frame->fourcc == NV12) {
        const uint8_t *chroma = frame->data + (height + y / 2) * stride + x / 2 * 2;
        yuv_to_rgb(row[x], chroma[0], chroma[1], rgb);
    } else if (frame->fourcc == YU12) {
        size_t half = (stride + 1) / 2;
        const uint8_t *cb = frame->data + height * stride;
        const uint8_t *cr = cb + half * ((height + 1) / 2);
        size_t at = y / 2 * half + x / 2;
        yuv_to_rgb(row[x], cb[at], cr[at], rgb);
    } else if (frame->fourcc == GREY) {
        memset(rgb, row[x], 3);
    } else {
        bool blue_first = frame->fourcc == BGR3;
        rgb[0] = row[3 * x + (blue_first ? 2 : 0)];
        rgb[1] = row[3 * x + 1];
        rgb[2] = row[3 * x + (blue_first ? 0 : 2)];
    }
}

static bool write_ppm(FILE *file, const struct camlease_frame_data *frame)
{
    uint8_t *row = malloc((size_t)frame->width * 3);
    bool good = row && fprintf(file, "P6\n%u %u\n255\n", (unsigned)frame->width, (unsigned)frame->height) > 0;

    for (size_t y = 0; good && y < frame->height; y++) {
        for (size_t x = 0; x < frame->width; x++)
            pixel(frame, x, y, row + 3 * x);
        good = fwrite(row, 3, frame->width, file) == frame->width;
    }
    free(row);
    return good;
}

const char *picture_save(const struct camlease_frame_data *frame, const char *prefix, char *name, size_t name_size)
{
    /* Some cameras leave the standard Huffman tables out of their JPEGs; most viewers add them. */
    bool jpeg = frame->fourcc == MJPG || frame->fourcc == JPEG;
    int length = snprintf(name, name_size, "%s.%s", prefix, jpeg ? "jpg" : "ppm");

    if (length < 0 || (size_t)length >= name_size)
        return "the file's name is too long";
    if (!picture_knows(frame->fourcc))
        return "this pixel format cannot be saved";
    if (!jpeg && (frame->stride < line(frame) || frame->size < whole(frame)))
        return "the frame is not whole";
    FILE *file = fopen(name, "wb");
    if (!file)
        return "the file cannot be created";
    bool good = jpeg ? fwrite(frame->data, 1, frame->size, file) == frame->size : write_ppm(file, frame);
    if (fclose(file) != 0)
        good = false;
    return good ? NULL : "the file cannot be written";
}
