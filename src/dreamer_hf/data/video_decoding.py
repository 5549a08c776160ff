"""Decodes chosen frames of a video file: once, in order, and no more of it than they need."""

from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from .files import first_line


def decode_frames(path: str | Path, times: np.ndarray, tolerance: float) -> Iterator[np.ndarray]:
    """Yields the frames shown at `times`, each (H, W, 3) uint8 RGB.

    Only groups of pictures that hold a wanted frame are decoded, and of each only the packets up to its last wanted
    one: every second frame of a video with a key frame at every second one costs half the decoding.

    Args:
        times: (n,) seconds from the start of the file, increasing.
        tolerance: seconds by which a frame's time may differ from the wanted one; less than half a frame.

    Raises:
        FileNotFoundError, ValueError: the file is missing, unreadable, or has no frame at one of the times.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: download the dataset again.")
    if len(times) == 0:
        return
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # Processes are the unit of parallel work here.
            yield from _wanted_frames(container, stream, np.asarray(times).tolist(), tolerance, path)
    except (av.error.FFmpegError, IndexError) as error:
        raise ValueError(f"{path} cannot be decoded ({first_line(error)}): download or record it again.") from error


def decode_every(source: str | Path | BinaryIO, step: int, name: str) -> Iterator[np.ndarray]:
    """Yields the first of every `step` frames of a video or animation, each (H, W, 3) uint8 RGB.

    Args:
        source: path, or an open binary file.
        name: what to call it in errors.

    Raises:
        ValueError: it cannot be decoded to its end, or holds no frame.
    """
    to_rgb, number = VideoReformatter(), -1
    try:
        with av.open(source if hasattr(source, "read") else str(source)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for number, frame in enumerate(container.decode(stream)):
                if frame.is_corrupt:
                    raise ValueError(
                        f"{name} has a damaged frame ({number}): repair it, or take it out of the folder."
                    )
                if number % step == 0:
                    yield _rgb_array(to_rgb.reformat(frame, format="rgb24"))
    except (av.error.FFmpegError, IndexError) as error:
        raise ValueError(
            f"{name} cannot be decoded ({first_line(error)}): repair it, or take it out of the folder."
        ) from error
    if number < 0:
        raise ValueError(f"{name} holds no frame: repair it, or take it out of the folder.")


def frame_rate(path: str | Path) -> float | None:
    """Frames a second of a video file, None where it does not say.

    Raises:
        ValueError: the file is no video.
    """
    try:
        with av.open(str(path)) as container:
            rate = container.streams.video[0].average_rate
    except (av.error.FFmpegError, IndexError) as error:
        raise ValueError(
            f"{path} is no video ({first_line(error)}): repair it, or take it out of the folder."
        ) from error
    return float(rate) if rate else None


def _wanted_frames(container, stream, times: list[float], tolerance: float, path: Path) -> Iterator[np.ndarray]:
    seconds_per_tick = float(stream.time_base)
    if times[0] > 0:
        container.seek(int(times[0] / seconds_per_tick), stream=stream, backward=True)
    to_rgb = VideoReformatter()
    position = 0
    for frame in _decode(_needed_packets(container, stream, times, tolerance), stream.codec_context):
        time = frame.pts * seconds_per_tick
        if time < times[position] - tolerance:
            continue
        if frame.is_corrupt or time > times[position] + tolerance:
            break
        yield _rgb_array(to_rgb.reformat(frame, format="rgb24"))
        position += 1
        if position == len(times):
            return
    raise ValueError(
        f"{path} has no intact frame at {times[position]:.3f} s, which its dataset's metadata promises: "
        "download or record it again."
    )


def _rgb_array(frame: av.VideoFrame) -> np.ndarray:
    """A view (H, W, 3) uint8 of an rgb24 frame's own memory, which may hold a few bytes more in each row."""
    (plane,) = frame.planes
    rows = np.frombuffer(plane, np.uint8).reshape(frame.height, plane.line_size)
    return rows[:, : 3 * frame.width].reshape(frame.height, frame.width, 3)


def _decode(packets, codec_context) -> Iterator[av.VideoFrame]:
    for packet in packets:
        yield from codec_context.decode(packet)
    yield from codec_context.decode(None)


def _needed_packets(container, stream, times: list[float], tolerance: float) -> Iterator[av.Packet]:
    seconds_per_tick = float(stream.time_base)

    def is_wanted(packet: av.Packet) -> bool:
        time = packet.pts * seconds_per_tick
        nearest = bisect_left(times, time - tolerance)
        return nearest < len(times) and times[nearest] <= time + tolerance

    end = times[-1] + tolerance
    for group, next_group in _with_next(_groups_of_pictures(container, stream)):
        if min(packet.pts for packet in group) * seconds_per_tick > end:
            return
        wanted = [index for index, packet in enumerate(group) if is_wanted(packet)]
        # An open group starts with pictures shown before its key frame, which refer to the group before it.
        next_is_open = next_group is not None and any(p.pts < next_group[0].pts for p in next_group)
        if next_is_open:
            yield from group
        elif wanted:
            yield from group[: wanted[-1] + 1]


def _groups_of_pictures(container, stream) -> Iterator[list[av.Packet]]:
    group: list[av.Packet] = []
    for packet in container.demux(stream):
        if packet.pts is None:  # The empty packet at the end of the file.
            continue
        if packet.is_keyframe and group:
            yield group
            group = []
        group.append(packet)
    if group:
        yield group


def _with_next(groups: Iterator) -> Iterator[tuple]:
    previous = None
    for group in groups:
        if previous is not None:
            yield previous, group
        previous = group
    if previous is not None:
        yield previous, None
