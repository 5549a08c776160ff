"""Decodes chosen frames of video files: in order, upright, in RGB, and no more of a file than they need.

Frames are (H, W, 3) uint8 RGB. Times are in seconds, as the container states them.
"""

import logging
import struct
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from .files import first_line
from .frame_transform import FrameTransform, as_rgb

logger = logging.getLogger(__name__)
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
UNEVEN = 0.3
"""Share of the time between two frames by which one may be shown early or late in an even video."""
MAX_TICK_RATE = 240
"""Frames per second; faster "rates" only mean that no common period of the frames was found."""
SELF_CONTAINED_KEY_FRAMES = ("av1", "libdav1d", "vp8", "vp9", "libvpx", "libvpx-vp9", "mjpeg", "png", "gif")
"""Codecs in which decoding can begin at any key frame, without regard to what was decoded before."""
REPAIR = "repair it, or take it out of the folder"


class RgbConverter:
    """Converts the decoded frames of one video to RGB, by its own color matrix and range, turned as its file says."""

    def __init__(self, name: str):
        self._name, self._reformatter = name, VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """Return (H, W, 3) uint8; a view of new memory, whose rows may be a few bytes apart."""
        rgb = self._reformatter.reformat(frame, format="rgb24", **_colors(frame))
        (plane,) = rgb.planes
        rows = np.frombuffer(plane, np.uint8).reshape(rgb.height, plane.line_size)
        array = rows[:, : 3 * rgb.width].reshape(rgb.height, rgb.width, 3)
        matrix = frame.side_data.get("DISPLAYMATRIX")
        return array if matrix is None else self._turned(array, struct.unpack("<9i", bytes(matrix)))

    def _turned(self, array: np.ndarray, matrix: tuple[int, ...]) -> np.ndarray:
        """Apply a display matrix, which sends the pixel at (x, y) to (a x + c y, b x + d y), to a frame."""
        a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
        along, across = max(abs(a), abs(d)), max(abs(b), abs(c))
        if min(along, across) * 100 > max(along, across):
            raise ValueError(f"{self._name} is turned by an angle that is not a multiple of 90 degrees: {REPAIR}.")
        if across > along:
            array, flips_rows, flips_columns = array.swapaxes(0, 1), b < 0, c < 0
        else:
            flips_rows, flips_columns = d < 0, a < 0
        return array[:: -1 if flips_rows else 1, :: -1 if flips_columns else 1]


def _colors(frame: av.VideoFrame) -> dict[str, int]:
    """Return how the colors of a frame are encoded; untagged ones are BT.601 in limited range, FFmpeg's default."""
    tagged = frame.colorspace not in (0, 2)  # RGB, unspecified
    if not tagged and frame.color_range != ColorRange.JPEG:
        return {}
    matrix = frame.colorspace if tagged else Colorspace.ITU601.value
    # RGB has no matrix, but PyAV applies that of the frame only if another one is asked for.
    other = Colorspace.ITU709.value if matrix == Colorspace.ITU601 else Colorspace.ITU601.value
    colors = {"src_colorspace": matrix, "dst_colorspace": other}
    return colors | {"src_color_range": frame.color_range, "dst_color_range": ColorRange.JPEG.value}


def decode_frames(path: str | Path, times: np.ndarray, tolerance: float) -> Iterator[np.ndarray]:
    """Yield the frames shown at `times`.

    Only groups of pictures that hold a wanted frame are decoded, and of each only the packets up to its last wanted
    one: every second frame of a video with a key frame at every second one costs half the decoding. Where key frames
    turn out not to be points to start from (open groups, recovery points, intra refresh), more is decoded.

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
    with _open_video(path, str(path), "download or record it again") as (container, stream):
        yield from _WantedFrames(container, stream, np.asarray(times).tolist(), tolerance, path)


def decode_clip(source: str | Path | BinaryIO, step: int, name: str, fps: float | None = None) -> Iterator[np.ndarray]:
    """Yield the first of every `step` frames of a video or animation.

    The frames of a video that shows them at uneven times are sampled by time, at `fps`, before they are counted: each
    sample is the frame shown at that moment.

    Args:
        source: path, or an open binary file.
        step: how many frames to advance at a time.
        name: what to call it in errors.
        fps: the rate of the result before thinning out, in frames per second.

    Raises:
        ValueError: it cannot be decoded to its end, holds no frame, or is uneven and there is no `fps`.
    """
    period = _sampling_period(source, name, fps)
    to_rgb, number = RgbConverter(name), -1
    with _open_video(source, name, REPAIR) as (container, stream):
        frames = container.decode(stream) if period is None else _sampled(container.decode(stream), period, period / 4)
        for number, frame in enumerate(frames):
            if frame.is_corrupt:
                raise ValueError(f"{name} has a damaged frame ({number}): {REPAIR}.")
            if number % step == 0:
                yield to_rgb(frame)
    if number < 0:
        raise ValueError(f"{name} holds no frame: {REPAIR}.")


def read_first_frames(path: str | Path, count: int, fps: float | None, transform: FrameTransform) -> np.ndarray:
    """Return the first frames of a video, or an image file, resized as converted data are.

    Args:
        path: a video, or an image, which is one frame.
        count: how many frames to return at most.
        fps: the rate to sample a video at, in frames per second; None: every frame.
        transform: what resizes the frames.

    Returns:
        (frames, H, W, 3) uint8 RGB, with 1 to `count` frames.

    Raises:
        ValueError: the file cannot be decoded, or holds no frame.
    """
    path = Path(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return transform(as_rgb(path.read_bytes(), str(path)))[None]
    to_rgb, chosen = RgbConverter(str(path)), []
    with _open_video(path, str(path), "save it as MP4") as (container, stream):
        frames = container.decode(stream)
        if fps is not None:
            rate = float(stream.average_rate or fps)
            frames = _sampled(frames, 1 / fps, 0.25 / max(fps, rate), 1 / rate)
        chosen.extend(transform(to_rgb(frame)) for frame in islice(frames, count))
    if not chosen:
        raise ValueError(f"{path} holds no frame: give another video.")
    return np.stack(chosen)


def frame_rate(path: str | Path) -> float | None:
    """Return the rate of a video file in frames per second, None for a single frame.

    Of a video whose frames are shown at uneven times, it is the rate at which sampling shows each of them in time.

    Raises:
        ValueError: the file is not a video, or its frames have no common rate.
    """
    with _open_video(path, str(path), REPAIR) as (_, stream):
        average, common = stream.average_rate, stream.base_rate
    if not average:
        return None
    if common and abs(average - common) > 0.01 * common:
        times = _frame_times(path, str(path))
        if times is not None and not _are_even(times):
            if common > MAX_TICK_RATE or not _are_near_ticks(times, 1 / float(common)):
                raise ValueError(_uneven(str(path), times))
            return float(common)
    return float(average)


@contextmanager
def _open_video(
    source: str | Path | BinaryIO, name: str, advice: str
) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open a container and its first video stream; turn FFmpeg's errors, here and in the block, into one sentence."""
    try:
        with av.open(source if hasattr(source, "read") else str(source)) as container:
            if not container.streams.video:
                raise ValueError(f"{name} holds no video: {advice}.")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # Processes are the unit of parallel work here.
            yield container, stream
    except av.error.FFmpegError as error:
        raise ValueError(f"{name} cannot be decoded ({first_line(error)}): {advice}.") from error


def _frame_times(source: str | Path | BinaryIO, name: str) -> np.ndarray | None:
    """Return the times at which a video shows its frames, in order; None where its packets carry none."""
    with _open_video(source, name, REPAIR) as (container, stream):
        stamps = [packet.pts for packet in container.demux(stream) if packet.size]
        tick = float(stream.time_base)
    if hasattr(source, "seek"):
        source.seek(0)
    return None if None in stamps else np.unique(stamps) * tick


def _sampling_period(source: str | Path | BinaryIO, name: str, fps: float | None) -> float | None:
    """Return the seconds between two samples of an uneven video, None for an even one, which needs no sampling."""
    times = _frame_times(source, name)
    if times is None or _are_even(times):
        return None
    if fps is None:
        raise ValueError(_uneven(name, times))
    steps = np.diff(times)
    logger.info(
        f"{name} shows its frames {steps.min():.3g} to {steps.max():.3g} s apart: sampled by time at {fps:g} frames/s"
    )
    return 1 / fps


def _uneven(name: str, times: np.ndarray) -> str:
    steps = np.diff(times)
    return (
        f"{name} shows its frames at uneven times ({steps.min():.3g} to {steps.max():.3g} s apart): give the rate to "
        "sample it at with --fps, or encode it again at a constant rate."
    )


def _are_even(times: np.ndarray) -> bool:
    """Return whether frames are shown at equal intervals, but for the rounding of their times."""
    return len(times) < 3 or _are_near_ticks(times, (times[-1] - times[0]) / (len(times) - 1), every=True)


def _are_near_ticks(times: np.ndarray, period: float, every: bool = False) -> bool:
    """Return whether each time is close to a multiple of `period` after the first: another one, or the next one."""
    ticks = (times - times[0]) / period
    nearest = np.arange(len(times)) if every else np.round(ticks)
    return bool(np.abs(ticks - nearest).max() < UNEVEN and np.diff(nearest).min(initial=1) > 0)


def _sampled(
    frames: Iterator[av.VideoFrame], period: float, early: float, spacing: float | None = None
) -> Iterator[av.VideoFrame]:
    """Yield the frame shown at each multiple of `period` after the first frame, some of them repeatedly or never.

    Args:
        early: how long before its time a frame may already be taken, as its time is rounded.
        spacing: seconds between frames that carry no times (those of a raw stream); default: `period`.
    """
    shown, start, due = None, None, 0.0
    for number, frame in enumerate(frames):
        time = float(frame.time) if frame.time is not None else number * (spacing or period)
        start = time if start is None else start
        while shown is not None and due + early < time - start:
            yield shown
            due += period
        shown, end = frame, time - start + _duration(frame, spacing or period)
    while shown is not None and due + early < end:
        yield shown
        due += period


def _duration(frame: av.VideoFrame, default: float) -> float:
    return float(frame.duration * frame.time_base) if frame.duration and frame.time_base else default


class _WantedFrames:
    """Iterates over the frames at given times, decoding ever more before a frame that does not come out intact.

    First only what a well-formed file needs is decoded. If a wanted frame is missing or damaged then, decoding starts
    again one key frame earlier, and two, four, ... earlier, without leaving out anything: frames after a recovery
    point and in an intra refresh need what came before their key frame.
    """

    def __init__(self, container, stream, times: list[float], tolerance: float, path: Path):
        self._container, self._stream, self._path = container, stream, path
        self._times, self._tolerance = times, tolerance
        self._tick = float(stream.time_base)
        self._to_rgb = RgbConverter(str(path))

    def __iter__(self) -> Iterator[np.ndarray]:
        position, earlier = 0, 0
        while position < len(self._times):
            packets, from_start = self._packets_before(self._times[position], earlier)
            before = position
            for frame in self._intact(self._decoded(packets, position, skips=earlier == 0), position):
                yield self._to_rgb(frame)
                position += 1
            if position == before and from_start and earlier:
                raise ValueError(
                    f"{self._path} has no intact frame at {self._times[position]:.3f} s, which its dataset's metadata "
                    "promises: download or record it again."
                )
            earlier = max(1, 2 * earlier) if position == before else 1

    def _intact(self, frames: Iterator[av.VideoFrame], position: int) -> Iterator[av.VideoFrame]:
        """Yield the wanted frames from number `position` on, as far as they come out of `frames` undamaged."""
        for frame in frames:
            time = frame.pts * self._tick
            if time < self._times[position] - self._tolerance:
                continue
            if frame.is_corrupt or time > self._times[position] + self._tolerance:
                return
            yield frame
            position += 1
            if position == len(self._times):
                return

    def _packets_before(self, time: float, earlier: int) -> tuple[Iterator[av.Packet], bool]:
        """Return the packets from the last key frame that is shown by `time`, or from one that many earlier.

        Seeking goes by decoding time and may land on a key frame that is shown after the wanted frame, which then
        needs the group before. The second value tells whether these are all packets of the file.
        """
        start = min(self._stream.start_time or 0, 0)
        position, last = max(start, int(time / self._tick)), None
        while True:
            first, packets = self._seek(position)
            at_start = first is None or first.dts is None or first.dts == last
            last = None if first is None else first.dts
            if at_start:
                return self._all_packets(), True
            if (first.pts is None or first.pts * self._tick <= time + self._tolerance) and earlier == 0:
                return chain([first], packets), False
            if first.pts is not None and first.pts * self._tick <= time + self._tolerance:
                earlier -= 1
            position = first.dts - 1

    def _seek(self, position: int) -> tuple[av.Packet | None, Iterator[av.Packet]]:
        try:
            self._container.seek(position, stream=self._stream, backward=True)
        except av.error.FFmpegError:  # There is no key frame so early.
            return None, iter(())
        packets = self._container.demux(self._stream)
        return next((packet for packet in packets if packet.size), None), packets

    def _all_packets(self) -> Iterator[av.Packet]:
        self._container.seek(0, backward=True)
        return self._container.demux(self._stream)

    def _decoded(self, packets: Iterator[av.Packet], position: int, skips: bool) -> Iterator[av.VideoFrame]:
        codec = self._stream.codec_context
        flushes = codec.name not in SELF_CONTAINED_KEY_FRAMES
        for packet, follows_gap in self._needed(packets, position) if skips else ((p, False) for p in packets):
            if follows_gap and flushes:  # What follows must not refer to frames before the gap.
                yield from codec.decode(None)
                codec.flush_buffers()
            if packet.pts is not None:
                yield from codec.decode(packet)
        yield from codec.decode(None)

    def _needed(self, packets: Iterator[av.Packet], position: int) -> Iterator[tuple[av.Packet, bool]]:
        """Yield the packets that the wanted frames need, each with whether others were left out just before it."""
        end, gap = self._times[-1] + self._tolerance, False
        for group, next_group in _with_next(_groups_of_pictures(packets)):
            if min(packet.pts for packet in group) * self._tick > end:
                return
            wanted = [index for index, packet in enumerate(group) if self._is_wanted(packet)]
            # An open group starts with frames shown before its key frame, which refer to the previous group.
            leads = next_group is not None and any(
                packet.pts < next_group[0].pts and self._is_wanted(packet) for packet in next_group
            )
            needed = group if leads else group[: wanted[-1] + 1] if wanted else []
            for index, packet in enumerate(needed):
                yield packet, gap and index == 0
            gap = len(needed) < len(group) if needed else True

    def _is_wanted(self, packet: av.Packet) -> bool:
        time = packet.pts * self._tick
        nearest = bisect_left(self._times, time - self._tolerance)
        return nearest < len(self._times) and self._times[nearest] <= time + self._tolerance


def _groups_of_pictures(packets: Iterator[av.Packet]) -> Iterator[list[av.Packet]]:
    group: list[av.Packet] = []
    for packet in packets:
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
