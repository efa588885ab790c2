"""What tests/python.rs has Python do: python3 reader.py CHECK NAME, where NAME is shared as 64x48 YUYV at 100 per second."""

import gc
import os
import select
import sys

from camlease_reader import Camera, CameraError, Disconnected, FrameTimeout, NotFound


def refused(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError("{} was not raised".format(kind.__name__))


def number(memory):
    """A virtual camera's frame begins with its number."""
    return int.from_bytes(memory[:8], "little")


def frames_out(camera):
    gc.collect()
    return camera.stats()["frames_out"]


def plain(name):
    assert "numpy" not in sys.modules
    with Camera("shared:" + name, name="a Python program") as camera:
        camera.start(in_order=True, buffers=3)
        assert (camera.info()["fourcc"], camera.info()["driver"]) == ("YUYV", "virtual"), camera.info()
        last = -1
        for count, frame in enumerate(camera):
            assert (frame.width, frame.height, frame.fourcc, frame.stride()) == (64, 48, "YUYV", 128), frame
            assert number(frame.data) == frame.sequence > last, (frame, last)
            assert frame.data.nbytes == 64 * 48 * 2 and frame.data.readonly
            last = frame.sequence
            if count == 200:
                break
        refused(TypeError, lambda: frame.data.__setitem__(0, 1))
        assert frames_out(camera) <= 1

        status = camera.command("status")
        assert [reader["name"] for reader in status["readers"] if reader["pid"] == os.getpid()] == ["a Python program"]
        assert refused(CameraError, lambda: camera.command("dance")).status == "UNSUPPORTED"

        # What was made of a frame keeps it; what is released goes back.
        kept = camera.next_frame()
        memory, what = kept.data, number(kept.data)
        assert kept.release() is False and kept.release() is True
        refused(ValueError, lambda: kept.data)
        del frame, kept
        before = frames_out(camera)
        with camera.next_frame() as other:
            assert frames_out(camera) == before + 1
        assert frames_out(camera) == before == 1
        for _ in range(100):
            camera.next_frame().release()
        assert number(memory) == what
        assert other.release() is True

        ready, _, _ = select.select([camera.fileno()], [], [], 10)
        assert ready
    # Closed: what is kept is readable still.
    assert number(memory) == what
    assert refused(CameraError, camera.next_frame).status == "INVALID_HANDLE"
    assert number(memory) == what

    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with Camera("shared:" + name) as camera:
            next(iter(camera))
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == descriptors

    missing = refused(NotFound, lambda: Camera("shared:nobody-" + name))
    assert missing.status == "NOT_FOUND" and "nobody serves a camera" in str(missing) and missing.hint, missing
    bad = refused(CameraError, lambda: Camera("shared:" + name + "?often=1"))
    assert bad.status == "INVALID_ARGUMENT", bad
    with Camera("virtual:stalled-{}?stall=0".format(os.getpid())) as camera:
        camera.start()
        late = refused(TimeoutError, lambda: camera.next_frame(0.05))
        assert isinstance(late, FrameTimeout) and late.status == "TIMEOUT" and "no frame came within 50 ms" in str(late)
    refused(ValueError, lambda: camera.start(fourcc="YUYVX"))


def mapping_of(address):
    """The line of /proc/self/maps with this address, as its rights and what is mapped."""
    with open("/proc/self/maps") as lines:
        for line in lines:
            bounds, rights, _, _, _, *path = line.split(None, 5)
            first, end = (int(bound, 16) for bound in bounds.split("-"))
            if first <= address < end:
                return rights, "".join(path).strip(), end
    raise AssertionError("{:x} is mapped nowhere".format(address))


def numpy(name):
    import numpy as np

    with Camera("shared:" + name + "?every=2") as camera:
        frame = camera.next_frame() if camera.start(in_order=True) else camera.next_frame()
        array = frame.array()
        assert array.shape == (48, 64, 2) and array.dtype == np.uint8 and array.flags["C_CONTIGUOUS"]
        # Not a copy: the array's bytes are where the other process wrote them.
        address = array.__array_interface__["data"][0]
        rights, what, end = mapping_of(address)
        assert rights == "r--s" and "memfd:camlease-frames" in what, (rights, what)
        assert address + array.nbytes <= end
        assert number(array.tobytes()) == frame.sequence
        # Read-only, and not to be made writable.
        refused(ValueError, lambda: array.__setitem__(0, 1))
        refused(ValueError, lambda: array.setflags(write=True))
        # The array keeps the frame, and so does what is cut out of it.
        part, what = array[:1, :4], frame.sequence
        assert frame.release() is False
        del frame, array
        assert frames_out(camera) == 1
        for _ in range(100):
            camera.next_frame().release()
        assert number(part.tobytes()) == what
        # As many as may be held, and then none until one goes.
        other = camera.next_frame().array()
        full = refused(FrameTimeout, lambda: camera.next_frame(0.2))
        assert "release frames" in full.hint, full
        del part
        assert frames_out(camera) == 1
        camera.next_frame()
        del other
        assert frames_out(camera) == 0
        last = camera.next_frame().array()
    before = last.copy()
    assert (last == before).all() and not last.flags["WRITEABLE"]

    shapes = {"YUYV": (48, 64, 2), "UYVY": (48, 64, 2), "RGB3": (48, 64, 3), "GREY": (48, 64), "NV12": (72, 64)}
    for fourcc, shape in shapes.items():
        uri = "virtual:shape-{}-{}?width=64&height=48&fourcc={}&fps=100".format(os.getpid(), fourcc, fourcc)
        with Camera(uri) as camera:
            array = next(camera.frames()).array()
            assert array.shape == shape and not array.flags["WRITEABLE"], (fourcc, array.shape)
            if fourcc == "RGB3":  # the second colour bar is yellow, the seventh blue
                assert np.abs(array[20, 12].astype(int) - [191, 191, 0]).max() <= 3, array[20, 12]
                assert np.abs(array[20, 52].astype(int) - [0, 0, 191]).max() <= 3, array[20, 52]


def patient(name):
    """Says each size that it sees, and goes on where the camera's process is gone."""
    seen = None
    with Camera("shared:" + name, wait_for_device=True, timeout=None) as camera:
        for frame in camera.frames(timeout=20, patient=True):
            if seen != (frame.width, frame.height):
                seen = frame.width, frame.height
                print("{}x{}".format(*seen), flush=True)
                if seen == (32, 16):
                    break
    with Camera("shared:" + name) as camera:
        camera.start()
        print("again", flush=True)
        refused(Disconnected, lambda: [frame for frame in camera.frames(timeout=20)])


{"plain": plain, "numpy": numpy, "patient": patient}[sys.argv[1]](sys.argv[2])
print("ok")
