"""Leads the fan-out benchmark: starts producers and readers, takes their CPU, joins their logs, prints the tables.

usage: fan_out.py PROGRAMS [--only NAME,...] [--sizes 640x480,1080p,4K] [--readers 1,4,16] [--rates 30,60,0]
                  [--longer TIMES] [--beside FOLDER] [--out PATH]

PROGRAMS is the folder of the built contenders; one that is not there is left out and named. FOLDER is another one, of
which camlease takes part as "camlease beside": for two versions in one run. The tables go to PATH.md as well, and all
figures to PATH.json. All contenders take their turns in a cell, each time beginning with another one. With
BENCH_QUICK=1 a few small cells show that all of it works. Status 1: a torn frame; 2: no figures of a contender that is
always there. participant.h says how all talk.
"""

import argparse
import json
import math
import mmap
import os
import platform
import re
import selectors
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from array import array
from contextlib import redirect_stdout
from pathlib import Path

HERE = Path(__file__).resolve().parent
QUICK = os.environ.get("BENCH_QUICK") == "1"
SIZES = {
    "640x480 YUYV": (640, 480, "YUYV", 640 * 480 * 2),
    "1080p YUYV": (1920, 1080, "YUYV", 1920 * 1080 * 2),
    "4K NV12": (3840, 2160, "NV12", 3840 * 2160 * 3 // 2),
}
PING_BYTES = 64
READERS = [1, 4, 16]
RATES = [30, 60, 0]  # frames per second; 0: as fast as it goes
# All 27 cells of seven contenders are through in less than ten minutes.
FRAMES = {30: 75, 60: 120, 0: 6000}
QUICK_FRAMES = {30: 30, 60: 60, 0: 500}
FAST_SECONDS = 0.8
#: A contender that falls behind the rate is not waited for any longer than that.
LATE = 1.3
ALWAYS = ["futex ping", "copy + futex", "camlease"]
ATTACH_SECONDS = 20
ENTRY = 24
DEPTH = 4  # as in participant.h
# Targets: reader latency after the wake-up against a ping's, and how far it may grow with the size of a frame.
PING_TARGET = 2.0
SIZE_TARGET = 1.25


class Broken(Exception):
    """This cell of this contender has no figures, and why."""


class Program:
    """One process of a contender; its lines are waited for, its last words are kept for when it breaks."""

    def __init__(self, words, folder, environment):
        self.errors = open(folder / f"errors-{len(list(folder.glob('errors-*')))}", "w+b")
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, env=environment
        )
        self.rest = b""

    def say(self, word):
        try:
            self.process.stdin.write(word + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Broken(self.last_words()) from None

    def last_words(self):
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else f"ended with status {self.process.poll()}"

    def end(self, seconds):
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.errors):
            try:
                pipe.close()
            except BrokenPipeError:
                pass


def hear(programs, word, count, seconds):
    """As many lines that begin with the word, from any of the programs."""
    found = []
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for program in programs:
            selector.register(program.process.stdout, selectors.EVENT_READ, program)
        while len(found) < count:
            ready = selector.select(max(0, deadline - time.monotonic()))
            if not ready:
                raise Broken(f"{len(found)} of {count} said {word!r} within {seconds} s")
            for key, _ in ready:
                program = key.data
                got = os.read(program.process.stdout.fileno(), 4096)
                if not got:
                    raise Broken(program.last_words())
                *lines, program.rest = (program.rest + got).split(b"\n")
                found += [line.decode().split() for line in lines if line.decode().startswith(word + " ")]
    return found


class Log:
    def __init__(self, path, room):
        self.path = path
        with open(path, "wb") as file:
            file.truncate(16 + ENTRY * room)
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)

    def count(self):
        return struct.unpack_from("=Q", self.memory, 0)[0]

    def torn(self):
        return struct.unpack_from("=Q", self.memory, 8)[0]

    def entries(self):
        words = array("q", self.memory[16 : 16 + ENTRY * self.count()])
        return zip(words[0::3], words[1::3], words[2::3])


def cpu_ns(pid):
    """User and system time of a process and all its threads, also of those that have ended, to the nanosecond."""
    return time.clock_gettime_ns((~pid << 3) | 2)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Contender:
    #: How many frames' memory it may take with so many readers.
    def memory(self, readers):
        return 10

    def __init__(self, name, producer, reader, own_readers=False):
        self.name, self.producer, self.reader, self.own_readers = name, producer, reader, own_readers
        self.environment = dict(os.environ)

    def missing(self):
        """Why it has to be left out."""
        return None

    def note(self):
        """What is told of it although it takes part."""
        return None

    def begin(self, folder):
        pass

    def finish(self):
        pass


class Futex(Contender):
    def __init__(self, name, programs):
        super().__init__(name, [programs / "by_futex"], [programs / "by_futex"])


class Camlease(Contender):
    def __init__(self, programs, name="camlease"):
        super().__init__(name, [programs / "by_camlease_producer"], [programs / "by_camlease"])

    def begin(self, folder):
        runtime = folder / self.name.replace(" ", "-")
        runtime.mkdir(mode=0o700)
        self.environment["CAMLEASE_RUNTIME_DIR"] = str(runtime)

    def missing(self):
        return None if self.producer[0].exists() else "not built"


class Iceoryx2(Contender):
    def __init__(self, programs):
        super().__init__("iceoryx2", [programs / "fan-out-iceoryx2"], [programs / "fan-out-iceoryx2"])

    def finish(self):
        # What it keeps for the next node of the machine; the programs give it this name.
        for left in Path("/dev/shm").glob("fan_out_iox2_*"):
            left.unlink()

    def missing(self):
        return None if self.producer[0].exists() else "its crates are not there (benches/fan-out/install-peers)"

    def memory(self, readers):
        return 6 * readers + 8


class GStreamer(Contender):
    def __init__(self, programs):
        super().__init__("GStreamer shm", [programs / "by_gstreamer"], [programs / "by_gstreamer"])

    def missing(self):
        if not self.producer[0].exists():
            return "not built: GStreamer's headers are missing (benches/fan-out/install-peers), or do not fit"
        return None if self.has("shmsink")[1] else "no shmsink here (gstreamer1.0-plugins-bad)"

    def has(self, element):
        """GStreamer's version, and whether that has the element."""
        words = subprocess.run([self.producer[0], element], capture_output=True, text=True, check=True).stdout.split()
        return words[0], words[1] == "yes"

    def note(self):
        version, there = self.has("unixfdsink")
        if there:
            return f"left out: GStreamer unixfd: GStreamer {version} has it, but it has no program here yet"
        return f"left out: GStreamer unixfd: GStreamer {version} has neither unixfdsink nor unixfdsrc (1.24 has)"

    def memory(self, readers):
        return 16


class Ros(Contender):
    def __init__(self, programs):
        super().__init__("ROS 1", [programs / "by_ros"], [programs / "by_ros"])
        self.master = None

    def missing(self):
        if not self.producer[0].exists():
            return "roscpp and image_transport are not installed (benches/fan-out/install-peers)"
        return None if shutil.which("rosmaster") else "no rosmaster here (python3-rosmaster)"

    def memory(self, readers):
        return 8 * readers + 8

    def begin(self, folder):
        port = free_port()
        self.environment |= {
            "ROS_MASTER_URI": f"http://127.0.0.1:{port}",
            "ROS_HOSTNAME": "127.0.0.1",
            "ROS_HOME": str(folder),
            "ROS_PACKAGE_PATH": "/usr/share",
        }
        self.master = subprocess.Popen(
            ["rosmaster", "--core", "-p", str(port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.environment,
        )
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.1)

    def finish(self):
        if self.master:
            self.master.terminate()
            self.master.wait()


class Python(Contender):
    def __init__(self):
        super().__init__("Python", [sys.executable, HERE / "by_python.py"], None, own_readers=True)


def available_bytes():
    text = Path("/proc/meminfo").read_text()
    return int(re.search(r"MemAvailable:\s+(\d+)", text).group(1)) * 1024


def limit_seconds(rate, frames, longer):
    return LATE * frames / rate if rate else FAST_SECONDS * longer


def measure(contender, size, readers, rate, longer, folder):
    """One contender in one cell."""
    frames = (QUICK_FRAMES if QUICK else FRAMES)[rate] * longer
    limit = limit_seconds(rate, frames, longer)
    width, height, fourcc, bytes_ = (PING_BYTES, 1, "GREY", PING_BYTES) if contender.name == "futex ping" else SIZES[size]
    need = contender.memory(readers) * bytes_
    if need > available_bytes():
        raise Broken(f"it may take {need >> 20} MiB, {available_bytes() >> 20} MiB are free")
    room = 2 * frames + 2000
    where = Path(tempfile.mkdtemp(dir=folder))
    settings = [
        f"folder={where}", f"bytes={bytes_}", f"width={width}", f"height={height}", f"format={fourcc}",
        f"readers={readers}", f"fps={rate}", f"frames={frames}", f"limit={int(limit * 10**9)}",
    ]  # fmt: skip
    log = Log(where / "log", room)
    logs = [Log(where / f"log.{at}", room) for at in range(readers)]
    programs = []

    def start(words, role, log):
        program = Program([*words, role, f"log={log.path}", *settings], where, contender.environment)
        programs.append(program)
        return program

    try:
        producer = start(contender.producer, "producer", log)
        producer_pid = int(hear([producer], "up", 1, ATTACH_SECONDS)[0][1])
        if not contender.own_readers:
            for reader_log in logs:
                start(contender.reader, "reader", reader_log)
        pids = [int(line[1]) for line in hear(programs, "ready", readers, ATTACH_SECONDS)]
        time.sleep(0.2)
        before = cpu_ns(producer_pid), sum(map(cpu_ns, pids))
        producer.say(b"go")
        _, first, count, took = hear([producer], "done", 1, limit + 30)[0]
        first, count, took = int(first), int(count), int(took)
        settle(logs)
        after = cpu_ns(producer_pid), sum(map(cpu_ns, pids))
        producer.say(b"stop")
        for program in reversed(programs):
            program.end(3)
        return join(log, logs, first, count, took, [b - a for a, b in zip(before, after)])
    finally:
        for program in programs:
            program.end(0)
        shutil.rmtree(where, ignore_errors=True)


def settle(logs):
    """Waits for frames that are still on their way, up to two seconds."""
    counts = None
    for _ in range(20):
        time.sleep(0.1)
        newest = [log.count() for log in logs]
        if newest == counts:
            return
        counts = newest


def join(log, logs, first, count, took, cpu):
    moments = {sequence: (at, woke) for sequence, at, woke in log.entries()}
    whole, wake = array("q"), array("q")
    for reader in logs:
        for sequence, at, _ in reader.entries():
            if first <= sequence < first + count and sequence in moments:
                published, woke = moments[sequence]
                whole.append(at - published)
                if woke:
                    wake.append(at - woke)
    if not whole:
        raise Broken("no frame arrived")
    return {
        "whole": [quantile(whole, share) / 1000 for share in (0.5, 0.99, 0.999)],
        "wake": [quantile(wake, share) / 1000 for share in (0.5, 0.99, 0.999)] if wake else None,
        "lost": 1 - len(whole) / (count * len(logs)),
        "torn": sum(reader.torn() for reader in logs),
        "fps": count / (took / 1e9),
        "producer_cpu": cpu[0] / count / 1000,
        "reader_cpu": cpu[1] / len(whole) / 1000,
        "wakes": wake,
    }


def quantile(values, share):
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def total_cpu(figures, readers):
    return figures["producer_cpu"] + readers * figures["reader_cpu"]


def told(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def rate_name(rate):
    return f"{rate} fps" if rate else "as fast as it goes"


def print_short_tables(results, options):
    """What the manual has: contenders side by side."""
    wanted = (
        ("latency from the hand-over, p50 / p99 / p99.9", lambda one, _: " / ".join(map(told, one["whole"]))),
        ("latency from the wake-up, p50 / p99 / p99.9", lambda one, _: one["wake"] and " / ".join(map(told, one["wake"]))),
        ("CPU for a frame: producer + a reader = all",
         lambda one, readers: f"{told(one['producer_cpu'])} + {told(one['reader_cpu'])} = {told(total_cpu(one, readers))}"),
    )  # fmt: skip
    for rate in options.rates:
        for title, cell in wanted:
            print(f"\n### {rate_name(rate)}: {title}\n")
            print("| frame | readers | " + " | ".join(options.names) + " |")
            print("|---" * (2 + len(options.names)) + "|")
            for size in options.sizes:
                for readers in options.readers:
                    row = [results.get((name, size, readers, rate)) for name in options.names]
                    cells = [(cell(one, readers) or "") if isinstance(one, dict) else "none" for one in row]
                    print(f"| {size} | {readers} | " + " | ".join(cells) + " |")


def print_tables(results, options):
    for rate in options.rates:
        print(f"\n### {rate_name(rate)}: everything\n")
        print("| frame | readers | | p50 | p99 | p99.9 | from the wake-up: p50 | p99 | p99.9 | lost | fps "
              "| CPU: producer | a reader | all | latency / camlease | CPU / camlease |")
        print("|---" * 16 + "|")
        for size in options.sizes:
            for readers in options.readers:
                own = results.get(("camlease", size, readers, rate))
                for contender in options.names:
                    figures = results.get((contender, size, readers, rate))
                    if figures is None:
                        continue
                    if isinstance(figures, str):
                        print(f"| {size} | {readers} | {contender} | {figures} |" + " |" * 12)
                        continue
                    everything = total_cpu(figures, readers)
                    compared = ["", ""]
                    if own and not isinstance(own, str) and contender not in ("camlease", "futex ping"):
                        compared = [f"{figures['whole'][0] / own['whole'][0]:.2f}",
                                    f"{everything / total_cpu(own, readers):.2f}"]
                    lost = f"{100 * figures['lost']:.1f} %" if figures["lost"] else "0"
                    if figures["torn"]:
                        lost += f", {figures['torn']} torn"
                    cells = [size, str(readers), contender,
                             *map(told, figures["whole"]), *(map(told, figures["wake"]) if figures["wake"] else ["", "", ""]),
                             lost, told(figures["fps"]), told(figures["producer_cpu"]), told(figures["reader_cpu"]),
                             told(everything), *compared]
                    print("| " + " | ".join(cells) + " |")


def met(good):
    return "met" if good else "**MISSED**"


def print_targets(results, options):
    def of(contender, size, readers, rate):
        figures = results.get((contender, size, readers, rate))
        return figures if isinstance(figures, dict) else None

    print("\n### Targets\n")
    print(f"- p99 from the wake-up at most {PING_TARGET} x a bare futex ping's, all sizes ranked together:")
    for rate in filter(None, options.rates):  # as fast as it goes, hardly a reader sleeps: there is nothing to wake
        for readers in options.readers:
            pairs = [(of("camlease", size, readers, rate), of("futex ping", size, readers, rate)) for size in options.sizes]
            own, bare = (sum((pair[at]["wakes"] for pair in pairs if all(pair)), array("q")) for at in (0, 1))
            if own and bare:
                ratios = [quantile(own, share) / quantile(bare, share) for share in (0.5, 0.99)]
                print(f"  - {rate_name(rate)}, {readers} readers: {ratios[1]:.2f} ({quantile(own, 0.99) / 1000:.0f} us of "
                      f"{len(own)} frames; median {ratios[0]:.2f}): {met(ratios[1] <= PING_TARGET)}")
    print(f"- p99 from the hand-over at most {PING_TARGET} x that of a bare copy and a futex:")
    for rate in options.rates:
        for readers in options.readers:
            ratios = {}
            for size in options.sizes:
                own, bare = of("camlease", size, readers, rate), of("copy + futex", size, readers, rate)
                if own and bare:
                    ratios[size] = own["whole"][1] / bare["whole"][1]
            if ratios:
                listed = ", ".join(f"{size} {ratio:.2f}" for size, ratio in ratios.items())
                print(f"  - {rate_name(rate)}, {readers} readers: {listed}: {met(max(ratios.values()) <= PING_TARGET)}")
    print(f"- median from the wake-up independent of the frame's size (largest / smallest at most {SIZE_TARGET}):")
    for rate in filter(None, options.rates):
        for readers in options.readers:
            small, large = (of("camlease", size, readers, rate) for size in (options.sizes[0], options.sizes[-1]))
            if small and large and small is not large and small["wake"] and large["wake"]:
                ratio = large["wake"][0] / small["wake"][0]
                print(f"  - {rate_name(rate)}, {readers} readers: {ratio:.2f}: {met(ratio <= SIZE_TARGET)}")
    print("- ahead of every peer in latency (from the hand-over) and in CPU (producer and all readers):")
    for peer in options.names:
        if peer in ALWAYS:
            continue
        for what, figure in (
            ("p50", lambda figures, _: figures["whole"][0]),
            ("p99", lambda figures, _: figures["whole"][1]),
            ("CPU", total_cpu),
        ):
            ratios = {}
            for size in options.sizes:
                for readers in options.readers:
                    for rate in options.rates:
                        own, other = of("camlease", size, readers, rate), of(peer, size, readers, rate)
                        if own and other:
                            ratios[size, readers, rate] = figure(other, readers) / figure(own, readers)
            if not ratios:
                continue
            behind = [f"{size}, {readers} readers, {rate_name(rate)} ({ratio:.2f})"
                      for (size, readers, rate), ratio in ratios.items() if ratio <= 1]
            middle = sorted(ratios.values())[len(ratios) // 2]
            print(f"  - {peer}, {what}: {len(ratios) - len(behind)} of {len(ratios)} cells, median ratio {middle:.2f}: "
                  + met(not behind) + (f"; behind in {'; '.join(behind)}" if behind else ""))


class Both:
    """Standard output, and a file that gets the same."""

    def __init__(self, path):
        self.files = [sys.stdout, *([open(path, "w")] if path else [])]

    def write(self, text):
        for file in self.files:
            file.write(text)

    def flush(self):
        for file in self.files:
            file.flush()


def chosen(text, kind=str):
    return [kind(word) for word in text.split(",")]


def size_named(beginning):
    """640x480, 1080p, 4K."""
    return next(name for name in SIZES if name.startswith(beginning))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("programs", type=Path)
    parser.add_argument("--only", type=chosen)
    parser.add_argument("--sizes", type=lambda text: chosen(text, size_named), default=[*SIZES][:1] if QUICK else [*SIZES])
    parser.add_argument("--readers", type=lambda text: chosen(text, int), default=[1, 4] if QUICK else READERS)
    parser.add_argument("--rates", type=lambda text: chosen(text, int), default=[60, 0] if QUICK else RATES)
    parser.add_argument("--longer", type=int, default=1, help="so many times the frames")
    parser.add_argument("--beside", type=Path, help="programs of another version of camlease")
    parser.add_argument("--out", type=Path, help="where tables (.md) and figures (.json) go")
    options = parser.parse_args()
    programs = options.programs.resolve()
    contenders = [
        Futex("futex ping", programs), Futex("copy + futex", programs), Camlease(programs), Iceoryx2(programs),
        GStreamer(programs), Ros(programs), Python(),
    ]  # fmt: skip
    if options.beside:
        contenders.insert(3, Camlease(options.beside.resolve(), "camlease beside"))
    contenders = [contender for contender in contenders if not options.only or contender.name in options.only]
    with redirect_stdout(Both(options.out and options.out.with_suffix(".md"))):
        status = run(contenders, options)
    sys.exit(status)


def run(contenders, options):
    print(f"{os.cpu_count()} processors ({processor()}), Linux {platform.release()}; microseconds, readers' frames "
          f"together; up to {DEPTH} frames wait for a reader")
    for contender in [*contenders]:
        if why := contender.missing():
            print(f"left out: {contender.name}: {why}")
            contenders.remove(contender)
        elif note := contender.note():
            print(note)
    options.names = [contender.name for contender in contenders]
    results = {}
    # In memory, so that no disk has a part in it.
    folder = Path(tempfile.mkdtemp(prefix="fan-out-", dir="/dev/shm"))
    began = time.monotonic()
    try:
        for contender in contenders:
            contender.begin(folder)
        turn = 0
        for rate in options.rates:
            for size in options.sizes:
                for readers in options.readers:
                    turn += 1
                    for at in range(len(contenders)):
                        contender = contenders[(at + turn) % len(contenders)]
                        key = (contender.name, size, readers, rate)
                        print(f"{time.monotonic() - began:5.0f} s  {key}", file=sys.stderr)
                        try:
                            results[key] = measure(contender, size, readers, rate, options.longer, folder)
                        except (Broken, OSError) as broken:  # OSError: one that has ended has no clock to be read
                            results[key] = f"no figures: {broken}"
    finally:
        for contender in contenders:
            contender.finish()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"taken in {time.monotonic() - began:.0f} s")
    print_targets(results, options)
    print_short_tables(results, options)
    print_tables(results, options)
    if options.out:
        told_of = lambda figures: {k: v for k, v in figures.items() if k != "wakes"} if isinstance(figures, dict) else figures
        rows = [dict(zip(("contender", "size", "readers", "rate", "figures"), (*key, told_of(figures))))
                for key, figures in results.items()]
        options.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    own = [figures for key, figures in results.items() if key[0] in ALWAYS]
    if any(isinstance(figures, str) for figures in own):
        return 2
    if any(figures["torn"] for key, figures in results.items() if key[0] == "camlease"):
        print("a frame of camlease was torn")
        return 1
    return 0


def processor():
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
