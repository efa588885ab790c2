"""Reading cameras from Python, by ctypes alone: any camera's name, and shared:NAME in particular.

    from camlease_reader import Camera

    with Camera("shared:front") as camera:
        for frame in camera.frames():
            picture = frame.array()      # NumPy: the frame itself, not a copy; read-only
            bytes_of_it = frame.data     # without NumPy: a memoryview

A frame is held until it was released and everything that was made of it is gone: an array that is kept keeps the frame.
Run as a program it prints a camera's frames: python3 camlease_reader.py shared:front --count 10
"""

import contextlib
import ctypes
import ctypes.util
import json
import os
import weakref

__all__ = ["Camera", "CameraError", "Disconnected", "Frame", "FrameTimeout", "NotFound", "version"]

ACCESS = {"exclusive": 0, "shared": 1, "monitor": 2}
OPEN_WAIT_FOR_DEVICE = 1
FRAME_CORRUPT = 1


# The header's structs, as far as they are needed here. struct_size tells the library how far that is.


class _OpenOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("timeout_ms", ctypes.c_int32),
        ("on_busy", ctypes.c_uint32),
        ("priority", ctypes.c_int32),
        ("name", ctypes.c_char_p),
        ("flags", ctypes.c_uint32),
        ("on_wait", ctypes.c_void_p),
        ("user_data", ctypes.c_void_p),
        ("cancel", ctypes.c_void_p),
        ("on_ask", ctypes.c_void_p),
        ("grace_ms", ctypes.c_int32),
        ("reserved", ctypes.c_uint32),
        ("access", ctypes.c_uint32),
    ]


class _StreamOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("width", ctypes.c_uint32),
        ("height", ctypes.c_uint32),
        ("fourcc", ctypes.c_uint32),
        ("fps_numerator", ctypes.c_uint32),
        ("fps_denominator", ctypes.c_uint32),
        ("buffers", ctypes.c_uint32),
        ("drop_policy", ctypes.c_uint32),
        ("max_bytes", ctypes.c_uint64),
    ]


class _CameraInfo(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("uri", ctypes.c_char_p),
        ("name", ctypes.c_char_p),
        ("driver", ctypes.c_char_p),
        ("serial", ctypes.c_char_p),
        ("bus", ctypes.c_char_p),
        ("state", ctypes.c_uint32),
        ("width", ctypes.c_uint32),
        ("height", ctypes.c_uint32),
        ("fourcc", ctypes.c_uint32),
        ("stride", ctypes.c_uint32),
        ("fps_numerator", ctypes.c_uint32),
        ("fps_denominator", ctypes.c_uint32),
        ("buffers", ctypes.c_uint32),
        ("planes", ctypes.c_uint32),
        ("buffer_bytes", ctypes.c_uint64),
    ]


class _CameraStats(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t)] + [
        (name, ctypes.c_uint64)
        for name in (
            "frames",
            "dropped",
            "corrupt",
            "open_attempts",
            "busy_wait_ns",
            "resets",
            "stalls",
            "reconnects",
            "frames_out",
            "bytes_out",
            "behind",
        )
    ]


class _Plane(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_size_t), ("stride", ctypes.c_uint32)]


class _FrameData(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("width", ctypes.c_uint32),
        ("height", ctypes.c_uint32),
        ("fourcc", ctypes.c_uint32),
        ("stride", ctypes.c_uint32),
        ("sequence", ctypes.c_uint64),
        ("timestamp_ns", ctypes.c_int64),
        ("flags", ctypes.c_uint32),
        ("planes", ctypes.c_uint32),
        ("plane", _Plane * 4),
    ]


def _load():
    """The library: CAMLEASE_LIBRARY, or what the system's loader finds."""
    named = os.environ.get("CAMLEASE_LIBRARY")
    candidates = [named] if named else ["libcamlease.so.0", ctypes.util.find_library("camlease")]
    reasons = []
    for candidate in candidates:
        if not candidate:
            continue
        try:
            library = ctypes.CDLL(candidate)
            break
        except OSError as error:
            reasons.append(str(error))
    else:
        hint = "install camlease (make install), or set CAMLEASE_LIBRARY to the path of libcamlease.so.0"
        raise ImportError("camlease's library was not loaded: {}; {}".format("; ".join(reasons), hint))
    handle, place = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)
    calls = {
        "camlease_camera_open": [ctypes.c_char_p, ctypes.POINTER(_OpenOptions), place],
        "camlease_camera_close": [handle],
        "camlease_camera_start": [handle, ctypes.POINTER(_StreamOptions)],
        "camlease_camera_stop": [handle],
        "camlease_camera_next_frame": [handle, ctypes.c_int32, place],
        "camlease_camera_fd": [handle, ctypes.POINTER(ctypes.c_int32)],
        "camlease_camera_info": [handle, ctypes.POINTER(_CameraInfo)],
        "camlease_camera_stats": [handle, ctypes.POINTER(_CameraStats)],
        "camlease_camera_command": [handle, ctypes.c_char_p, ctypes.c_int32, place],
        "camlease_frame_info": [handle, ctypes.POINTER(_FrameData)],
        "camlease_frame_release": [handle],
        "camlease_reply_free": [handle],
    }
    for name, arguments in calls.items():
        try:
            call = getattr(library, name)
        except AttributeError:
            hint = "install this version's library, or set CAMLEASE_LIBRARY to its path"
            raise ImportError("camlease's library ({}) is older than this: it has no {}; {}".format(candidate, name, hint))
        call.argtypes, call.restype = arguments, ctypes.c_uint32
    library.camlease_reply_text.argtypes, library.camlease_reply_text.restype = [handle], ctypes.c_char_p
    library.camlease_status_name.argtypes, library.camlease_status_name.restype = [ctypes.c_uint32], ctypes.c_char_p
    library.camlease_last_error_message.argtypes, library.camlease_last_error_message.restype = [], ctypes.c_char_p
    library.camlease_last_error_errno.argtypes, library.camlease_last_error_errno.restype = [], ctypes.c_int32
    library.camlease_version_string.argtypes, library.camlease_version_string.restype = [], ctypes.c_char_p
    return library


_library = _load()


def version():
    """The library's version, as "0.1.0"."""
    return _library.camlease_version_string().decode()


class CameraError(Exception):
    """A call that failed.

    status   its name, as "BUSY"
    message  the library's words: the camera, what was tried, the reason, what to do
    hint     the last part of these words, which usually is what to do; "" where there is one part only
    errno    the operating system's number behind it, or 0
    """

    def __init__(self, status, message, errno=0):
        super().__init__(status, message, errno)
        self.status, self.message, self.errno = status, message, errno
        self.hint = message.rpartition("; ")[2] if "; " in message else ""

    def __str__(self):
        return "{}: {}".format(self.status, self.message)


class FrameTimeout(CameraError, TimeoutError):
    """Nothing came in time."""


class NotFound(CameraError):
    """There is no such camera, or nobody shares one by this name."""


class Disconnected(CameraError):
    """The camera is gone. For shared:NAME: its process is; frames come again by the same Camera when it is back."""


_ERRORS = {"TIMEOUT": FrameTimeout, "NOT_FOUND": NotFound, "DISCONNECTED": Disconnected}


def _check(status):
    if status == 0:
        return
    # Both are this thread's own, of the call that has just failed.
    message = _library.camlease_last_error_message().decode(errors="replace")
    errno = _library.camlease_last_error_errno()
    name = _library.camlease_status_name(status).decode().replace("CAMLEASE_", "", 1)
    raise _ERRORS.get(name, CameraError)(name, message, errno)


def _milliseconds(seconds):
    """None waits without end; the library counts in milliseconds."""
    return -1 if seconds is None else max(0, min(int(seconds * 1000), 2**31 - 1))


def _code(fourcc):
    code = fourcc.encode().ljust(4)
    if len(code) != 4:
        raise ValueError("fourcc: {!r} is not a four-character code".format(fourcc))
    return int.from_bytes(code, "little")


class _Held:
    """A frame's handle. Whoever needs the frame's bytes keeps this; with the last of them the frame goes back."""

    def __init__(self, handle):
        self.handle = handle

    def __del__(self, release=_library.camlease_frame_release):
        release(self.handle)  # in a forked child this gives FORKED, and does nothing


class Frame:
    """A frame: what is told of it, and its bytes where the camera or its process wrote them."""

    def __init__(self, handle):
        self._held = _Held(handle)
        told = _FrameData(struct_size=ctypes.sizeof(_FrameData))
        _check(_library.camlease_frame_info(handle, ctypes.byref(told)))
        self.width, self.height, self.sequence = told.width, told.height, told.sequence
        self.fourcc = told.fourcc.to_bytes(4, "little").decode("latin-1").rstrip()
        self.timestamp_ns = told.timestamp_ns
        """Of the exposure or near it; CLOCK_MONOTONIC, as time.monotonic_ns() has it."""
        self.is_corrupt = bool(told.flags & FRAME_CORRUPT)
        self.planes = told.planes
        self._places = [(place.data, place.size, place.stride) for place in told.plane[: told.planes]]

    def memory(self, plane=0):
        """The bytes of a plane: a read-only memoryview of the frame itself, which keeps the frame."""
        if self._held is None:
            raise ValueError("the frame was released")
        address, size, _ = self._places[plane]
        area = (ctypes.c_ubyte * size).from_address(address) if size else (ctypes.c_ubyte * 0)()
        area.held = self._held  # what is made of the area keeps it, and this with it
        return memoryview(area).toreadonly().cast("B")

    @property
    def data(self):
        return self.memory(0)

    def stride(self, plane=0):
        """Bytes from one line to the next; 0 for compressed frames."""
        return self._places[plane][2]

    def array(self, plane=0):
        """The frame as a NumPy array in the shape of its format, read-only and without a copy; it keeps the frame.

        (height, width, 3) for RGB3 and BGR3, (height, width, 2) for YUYV and UYVY, (height, width) for GREY and for
        Y16, (height * 3 / 2, width) for NV12 and YU12 in one plane, and the bytes in one line for all else, JPEG included.
        """
        import numpy

        memory, stride = self.memory(plane), self.stride(plane)
        width, height = self.width, self.height
        one = plane == 0 and self.planes == 1
        kind = numpy.dtype(numpy.uint8)
        if one and self.fourcc in ("RGB3", "BGR3"):
            shape, strides = (height, width, 3), (stride, 3, 1)
        elif one and self.fourcc in ("YUYV", "UYVY", "YVYU", "VYUY"):
            shape, strides = (height, width, 2), (stride, 2, 1)
        elif one and self.fourcc in ("GREY", "Y8"):
            shape, strides = (height, width), (stride, 1)
        elif one and self.fourcc in ("Y16", "Z16"):
            kind = numpy.dtype("<u2")
            shape, strides = (height, width), (stride, 2)
        # Planes of chroma have half the stride: where lines are longer than their pixels they fit into no one shape.
        elif one and (self.fourcc in ("NV12", "NV21") or self.fourcc in ("YU12", "YV12") and stride == width):
            shape, strides = (height * 3 // 2, width), (stride, 1)
        else:
            return numpy.frombuffer(memory, kind)
        flat = numpy.frombuffer(memory, numpy.uint8)
        needed = (shape[0] - 1) * strides[0] + width * strides[1]
        if memory.nbytes < needed:
            raise ValueError("the frame is not whole: {} bytes of {}".format(memory.nbytes, needed))
        # Over the flat array: made of the memoryview, its base would be what that is a view of, and it could be made
        # writable.
        return numpy.ndarray(shape, kind, flat, 0, strides)

    def release(self):
        """Gives the frame back. True when it has gone back; False when arrays or memoryviews keep it: then it goes back
        with the last of them, which stay good until then."""
        last = weakref.ref(self._held) if self._held is not None else None
        self._held = None
        return last is None or last() is None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.release()

    def __repr__(self):
        return "<frame {}, {}x{} {}>".format(self.sequence, self.width, self.height, self.fourcc)


class Camera:
    """A camera that is held, or one that is read where another process shares it.

    uri     "shared:front", "shared:front?every=3", "shared:front?rate=5", "/dev/video0", "virtual:test", ...
    name    what others see of this program
    timeout seconds to wait for a busy camera; None waits without end
    access  "exclusive", "shared" or "monitor" (CAMLEASE_ACCESS_ in the header)
    wait_for_device  waits for a camera that is not there, or that nobody shares yet, too
    """

    def __init__(self, uri, name="", timeout=5.0, access="exclusive", wait_for_device=False):
        self._handle = None
        self._streams = False
        options = _OpenOptions(
            struct_size=ctypes.sizeof(_OpenOptions),
            timeout_ms=_milliseconds(timeout),
            name=name.encode() if name else None,
            flags=OPEN_WAIT_FOR_DEVICE if wait_for_device else 0,
            access=ACCESS[access],
        )
        handle = ctypes.c_void_p()
        _check(_library.camlease_camera_open(os.fsencode(uri), ctypes.byref(options), ctypes.byref(handle)))
        self._handle = handle.value

    def start(self, width=0, height=0, fourcc="", fps=0, buffers=0, in_order=False):
        """Starts streaming; 0 and "" for what there is.

        buffers   frames that may be held at once, for shared:NAME; 0 for 2 there
        in_order  all frames that can be had, one after the other; else always the newest
        """
        numerator, denominator = (fps, 1) if isinstance(fps, int) else fps
        options = _StreamOptions(
            struct_size=ctypes.sizeof(_StreamOptions),
            width=width,
            height=height,
            fourcc=_code(fourcc) if fourcc else 0,
            fps_numerator=numerator,
            fps_denominator=denominator if numerator else 0,
            buffers=buffers,
            drop_policy=1 if in_order else 0,
        )
        _check(_library.camlease_camera_start(self._handle, ctypes.byref(options)))
        self._streams = True

    def stop(self):
        _check(_library.camlease_camera_stop(self._handle))
        self._streams = False

    def next_frame(self, timeout=5.0):
        """The next frame; FrameTimeout when none came within so many seconds."""
        handle = ctypes.c_void_p()
        _check(_library.camlease_camera_next_frame(self._handle, _milliseconds(timeout), ctypes.byref(handle)))
        return Frame(handle.value)

    def frames(self, timeout=5.0, patient=False):
        """All frames from now on; starts the stream where it has not begun. A frame goes back when the next one is asked
        for, unless something was made of it that is kept.

        patient  goes on when the process that shares the camera is gone, until it is back
        """
        if not self._streams:
            self.start()
        while True:
            try:
                frame = self.next_frame(timeout)
            except Disconnected:
                if patient:
                    continue
                raise
            yield frame
            frame.release()

    def __iter__(self):
        return self.frames()

    def fileno(self):
        """A descriptor for select and asyncio: readable when next_frame(0) has something to tell."""
        number = ctypes.c_int32(-1)
        _check(_library.camlease_camera_fd(self._handle, ctypes.byref(number)))
        return number.value

    def info(self):
        told = _CameraInfo(struct_size=ctypes.sizeof(_CameraInfo))
        _check(_library.camlease_camera_info(self._handle, ctypes.byref(told)))
        values = {name: getattr(told, name) for name, _ in told._fields_[1:]}
        values = {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}
        values["fourcc"] = told.fourcc.to_bytes(4, "little").decode("latin-1").rstrip("\0 ")
        return values

    def stats(self):
        told = _CameraStats(struct_size=ctypes.sizeof(_CameraStats))
        _check(_library.camlease_camera_stats(self._handle, ctypes.byref(told)))
        return {name: getattr(told, name) for name, _ in told._fields_[1:]}

    def command(self, do, timeout=5.0, **fields):
        """Sends a command to the process that shares the camera, as command("status"); its answer, a dict."""
        request = json.dumps(dict(fields, do=do)).encode()
        reply = ctypes.c_void_p()
        status = _library.camlease_camera_command(self._handle, request, _milliseconds(timeout), ctypes.byref(reply))
        _check(status)
        try:
            return json.loads(_library.camlease_reply_text(reply))
        finally:
            _library.camlease_reply_free(reply)

    def close(self):
        """Closes the camera. Frames that are kept stay readable."""
        handle, self._handle = self._handle, None
        if handle is not None:
            _check(_library.camlease_camera_close(handle))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        with contextlib.suppress(Exception):
            self.close()


def _main():
    import argparse
    import sys
    import time

    parser = argparse.ArgumentParser(description="Prints the frames of a camera.")
    parser.add_argument("camera", help="shared:NAME, shared:NAME?every=3, virtual:test, /dev/video0, ...")
    parser.add_argument("--count", type=int, default=0, help="ends after so many frames")
    parser.add_argument("--in-order", action="store_true", help="all frames that can be had, not the newest alone")
    arguments = parser.parse_args()
    try:
        with Camera(arguments.camera, name="camlease_reader.py") as camera:
            camera.start(in_order=arguments.in_order)
            for count, frame in enumerate(camera.frames(), 1):
                age = (time.monotonic_ns() - frame.timestamp_ns) / 1e6
                print("{}, {} bytes, {:.1f} ms old".format(frame, frame.data.nbytes, age), flush=True)
                if count == arguments.count:
                    break
    except CameraError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    _main()
