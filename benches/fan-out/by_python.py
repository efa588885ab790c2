"""Python: a ring in multiprocessing.shared_memory, a multiprocessing.Queue for each reader that says which slot to read.

A slot is written again when all readers are through with it: a slow one holds up the producer. One program starts all readers, as the queues can only be inherited. Says the same as participant.h.
"""

import multiprocessing
import os
import queue
import select
import struct
import sys
import time
from mmap import mmap
from multiprocessing import shared_memory

LAST = 2**64 - 1
DEPTH = 4
SLOTS = 2 * DEPTH
SECOND = 10**9
WARM_UP_FPS = 30


class Log:
    def __init__(self, path):
        with open(path, "r+b") as file:
            self.memory = mmap(file.fileno(), 0)
        self.count = self.torn = 0
        self.room = (len(self.memory) - 16) // 24

    def add(self, sequence, at, woke):
        if self.count < self.room:
            struct.pack_into("=Qqq", self.memory, 16 + 24 * self.count, sequence, at, woke)
            self.count += 1
            struct.pack_into("=Q", self.memory, 0, self.count)

    def add_torn(self):
        self.torn += 1
        struct.pack_into("=Q", self.memory, 8, self.torn)


def read(settings, ring, frames, done, index, log):
    log = Log(log)
    size = settings["bytes"]
    last = -1
    while True:
        turn, expected = frames.get()
        slot = turn % SLOTS
        if expected == LAST:
            return
        (head,) = struct.unpack_from("=Q", ring.buf, slot * size)
        (tail,) = struct.unpack_from("=Q", ring.buf, slot * size + size - 8)
        now = time.monotonic_ns()
        done[index] = turn
        if head != expected or tail != expected or head <= last:
            log.add_torn()
            continue
        log.add(head, now, 0)
        if last == -1:
            os.write(1, b"ready %d\n" % os.getpid())
        last = head


class Producer:
    def __init__(self, settings):
        self.size = settings["bytes"]
        self.picture = bytearray(b"\x80") * self.size
        self.ring = shared_memory.SharedMemory(create=True, size=SLOTS * self.size)
        self.queues = [multiprocessing.Queue(DEPTH) for _ in range(settings["readers"])]
        self.given = [[-1] * SLOTS for _ in self.queues]
        self.done = multiprocessing.RawArray("q", [-1] * len(self.queues))
        self.log = Log(settings["log"])
        self.turn = 0

    def in_use(self, slot):
        return any(given[slot] > done for given, done in zip(self.given, self.done))

    def publish(self, sequence):
        slot = self.turn % SLOTS
        while self.in_use(slot):
            time.sleep(0.0001)
        start = slot * self.size
        struct.pack_into("=Q", self.picture, 0, sequence)
        struct.pack_into("=Q", self.picture, self.size - 8, sequence)
        at = time.monotonic_ns()
        self.ring.buf[start : start + self.size] = self.picture
        woke = time.monotonic_ns()
        for frames, given in zip(self.queues, self.given):
            try:
                frames.put_nowait((self.turn, sequence))
                given[slot] = self.turn
            except queue.Full:
                pass  # this reader is late and loses the frame
        self.turn += 1
        if sequence != LAST:
            self.log.add(sequence, at, woke)


def heard(seconds):
    if not select.select([0], [], [], seconds)[0]:
        return ""
    return os.read(0, 64)[:1].decode() or "s"


def produce(settings, producer):
    os.write(1, b"up %d\n" % os.getpid())
    sequence = 0
    while heard(1 / WARM_UP_FPS) != "g":
        producer.publish(sequence)
        sequence += 1
    first = sequence
    began = due = time.monotonic_ns()
    while sequence - first < settings["frames"] and time.monotonic_ns() - began < settings["limit"]:
        if settings["fps"]:
            interval = SECOND // settings["fps"]
            due += interval
            now = time.monotonic_ns()
            if due < now - interval:
                due = now
            time.sleep(max(0, due - now) / SECOND)
        producer.publish(sequence)
        sequence += 1
    os.write(1, b"done %d %d %d\n" % (first, sequence - first, time.monotonic_ns() - began))
    while not heard(10):
        pass
    for _ in range(5):
        producer.publish(LAST)
        time.sleep(0.02)


def main():
    multiprocessing.set_start_method("fork")
    settings = dict(word.split("=", 1) for word in sys.argv[2:])
    settings = {key: int(value) if value.isdigit() else value for key, value in settings.items()}
    producer = Producer(settings)
    readers = [
        multiprocessing.Process(
            target=read,
            daemon=True,
            args=(settings, producer.ring, frames, producer.done, at, f"{settings['log']}.{at}"),
        )
        for at, frames in enumerate(producer.queues)
    ]
    for reader in readers:
        reader.start()
    produce(settings, producer)
    for reader in readers:
        reader.join(1)
        reader.kill()
    producer.ring.close()
    producer.ring.unlink()


main()
