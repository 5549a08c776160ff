"""Videos as they come: any group of pictures, turned, at uneven times, with any color matrix, raw, or damaged."""

import logging
import struct
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from PIL import Image

from dreamer_hf.data import ShardDataset
from dreamer_hf.data.conversion_options import ConversionOptions
from dreamer_hf.data.convert import convert
from dreamer_hf.data.frame_transform import FrameTransform, as_rgb
from dreamer_hf.data.sources.video_source import VideoSource
from dreamer_hf.data.video_decoding import decode_clip, decode_frames, frame_rate, read_first_frames

HEIGHT, WIDTH = 64, 128


def moving_texture(number):
    """A frame (64, 128, 3) of noise that moves and flickers, so that frames decoded from wrong references show."""
    texture = np.random.default_rng(0).integers(0, 200, (16, 32, 3), np.uint8)
    noise = np.random.default_rng(number).integers(0, 50, (HEIGHT, WIDTH, 3), np.uint8)
    return np.roll(cv2.resize(texture, (WIDTH, HEIGHT)), (3 * number, 5 * number), (0, 1)) + noise


def numbered(number):
    """A frame whose red channel tells its number: 10 * number."""
    return np.full((HEIGHT, WIDTH, 3), (10 * number, 40, 200), np.uint8)


def write_video(path, frames, codec="libx264", options=None, times=None, fps=10, container=None, pixels="yuv420p"):
    """Encodes frames, at these times in seconds where they are given."""
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], pixels
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[number] * 1000), Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def decode_all(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


GROUPS = {
    "HEVC as lerobot records it": ("libx265", {"g": "2", "crf": "30", "x265-params": "log-level=none"}),
    "HEVC, long groups": ("libx265", {"g": "30", "x265-params": "log-level=none"}),
    "H.264, open groups": ("libx264", {"g": "12", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}),
    "H.264, intra refresh": ("libx264", {"x264-params": "intra-refresh=1:keyint=10:bframes=0"}),
    "H.264, intra refresh and B-frames": ("libx264", {"x264-params": "intra-refresh=1:keyint=10:bframes=3"}),
    "MPEG-2": ("mpeg2video", {"g": "12", "bf": "2"}),
    "MPEG-4": ("mpeg4", {"g": "12", "bf": "2"}),
    "VP9": ("libvpx-vp9", {"g": "12"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", GROUPS)
def test_every_window_of_any_group_of_pictures_is_exact(tmp_path, kind):
    codec, options = GROUPS[kind]
    path = write_video(tmp_path / "clip.mp4", [moving_texture(k) for k in range(72)], codec, options)
    expected = decode_all(path)
    assert len(expected) == 72
    for step, count in ((1, 8), (3, 6), (40, 72)):
        for start in range(0, 72, 1 if count < 72 else 7):
            numbers = np.arange(start, min(72, start + step * count), step)
            found = list(decode_frames(path, numbers / 10, tolerance=0.049))
            np.testing.assert_array_equal(found, [expected[number] for number in numbers])


def test_a_frame_that_is_not_there_is_named(tmp_path):
    path = write_video(tmp_path / "clip.mp4", [moving_texture(k) for k in range(30)])
    for times in ([1.0, 1.05], [2.8, 2.9, 3.0]):
        with pytest.raises(ValueError, match=rf"has no intact frame at {times[-1]:.3f} s"):
            list(decode_frames(path, np.array(times), tolerance=0.02))


ONE = 0x10000
TURNS = {
    "upright": ((ONE, 0, 0, ONE), lambda frame: frame),
    "90": ((0, ONE, -ONE, 0), lambda frame: np.rot90(frame, -1)),
    "180": ((-ONE, 0, 0, -ONE), lambda frame: np.rot90(frame, 2)),
    "270": ((0, -ONE, ONE, 0), lambda frame: np.rot90(frame, 1)),
    "mirrored": ((-ONE, 0, 0, ONE), lambda frame: frame[:, ::-1]),
    "upside down": ((ONE, 0, 0, -ONE), lambda frame: frame[::-1]),
    "transposed": ((0, ONE, ONE, 0), lambda frame: frame.swapaxes(0, 1)),
    "mirrored and turned": ((0, -ONE, -ONE, 0), lambda frame: np.rot90(frame, 2).swapaxes(0, 1)),
}


def turn(path, matrix):
    """Rewrites the display matrix of an MP4, as a phone that is held upright writes it."""
    content, (a, b, c, d) = bytearray(path.read_bytes()), matrix
    start = content.index(b"tkhd") + 4 + 40
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", TURNS)
def test_turned_and_mirrored_videos_are_shown_upright(tmp_path, name):
    matrix, expected = TURNS[name]
    path = write_video(tmp_path / "clip.mp4", [moving_texture(k) for k in range(4)])
    coded = decode_all(path)
    turn(path, matrix)
    for found in (decode_clip(path, 1, "clip"), decode_frames(path, np.arange(4) / 10, 0.04)):
        np.testing.assert_array_equal(list(found), [expected(frame) for frame in coded])
    first = read_first_frames(path, 2, 10, FrameTransform())
    np.testing.assert_array_equal(first, [expected(frame) for frame in coded[:2]])


def test_converted_videos_are_upright_and_odd_angles_are_refused(tmp_path):
    turn(write_video(tmp_path / "clip.mp4", [numbered(k) for k in range(4)]), TURNS["90"][0])
    out = convert(VideoSource(tmp_path), tmp_path / "out", ConversionOptions())
    assert ShardDataset(out, None, split="all").image_size == (WIDTH, HEIGHT)
    turn(tmp_path / "clip.mp4", (ONE, ONE, -ONE, ONE))
    with pytest.raises(ValueError, match=r"clip\.mp4 is turned by an angle that is not a multiple of 90 degrees"):
        list(decode_clip(tmp_path / "clip.mp4", 1, "clip.mp4"))


TONES = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 40), (40, 120, 200), (255, 255, 255), (0, 0, 0), (128,) * 3)


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("color_range", [ColorRange.MPEG, ColorRange.JPEG])
@pytest.mark.parametrize("matrix", [None, *Colorspace])
def test_colors_are_those_of_the_source_whatever_its_matrix_and_range(tmp_path, matrix, color_range, pixels):
    """Against the colors that went in, and against FFmpeg's own conversion, which its filters do."""
    bars = np.repeat(np.repeat(np.array([TONES], np.uint8), HEIGHT, 0), WIDTH // len(TONES), 1)
    path, to_yuv = tmp_path / "clip.mp4", VideoReformatter()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "0"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, pixels
        context = stream.codec_context
        context.color_range, context.colorspace = color_range, matrix or 2
        for _ in range(2):
            rgb = av.VideoFrame.from_ndarray(bars, format="rgb24")
            # RGB has no matrix, but PyAV sets the one of the result only if the two differ.
            colors = {"src_colorspace": Colorspace.ITU601 if matrix == Colorspace.ITU709 else Colorspace.ITU709}
            colors |= {"dst_colorspace": matrix or Colorspace.ITU601, "dst_color_range": color_range}
            frame = to_yuv.reformat(rgb, format=pixels, src_color_range=ColorRange.JPEG, **colors)
            frame.colorspace, frame.color_range = matrix or 2, color_range
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (found, _) = decode_clip(path, 1, "clip")
    middle = found[:, 8::16].astype(int)  # away from the edges, where chroma is averaged
    assert np.abs(middle - np.array(TONES)).max() <= 2 + (pixels == "yuv420p10le")
    if color_range == ColorRange.MPEG:
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=WIDTH, height=HEIGHT, format=frame.format, time_base=Fraction(1, 10), name="source"
        )
        conversion, sink = graph.add("format", "pix_fmts=rgb24"), graph.add("buffersink")
        source.link_to(conversion)
        conversion.link_to(sink)
        graph.configure()
        graph.push(frame)
        assert np.abs(found.astype(int) - graph.pull().to_ndarray()).max() <= 2


def red(frames):
    """The numbers of `numbered` frames."""
    return [round(float(frame[..., 0].mean()) / 10) for frame in frames]


PAUSE = [k / 10 for k in range(10)] + [3 + k / 10 for k in range(10)]
SLOWING = [k / 30 for k in range(10)] + [10 / 30 + k / 10 for k in range(10)]


def test_frames_at_uneven_times_are_sampled_by_time(tmp_path, caplog):
    frames = [numbered(k) for k in range(20)]
    paused = write_video(tmp_path / "pause.mp4", frames, times=PAUSE)
    slowing = write_video(tmp_path / "slowing.mkv", frames, times=SLOWING, fps=30)
    assert frame_rate(paused) == 10 and frame_rate(slowing) == 30
    with caplog.at_level(logging.INFO):
        found = red(decode_clip(paused, 1, "pause.mp4", 10))
    assert found == [*range(9), *[9] * 21, *range(10, 20)]
    assert "pause.mp4 shows its frames 0.1 to 2.1 s apart: sampled by time at 10 frames/s" in caplog.text
    expected = [*range(10), *np.repeat(np.arange(10, 20), 3)]
    found = red(decode_clip(slowing, 1, "slowing.mkv", 30))
    assert (
        found == expected[: len(found)] and len(expected) - len(found) <= 2
    )  # how long the last one lasts is a guess
    assert red(decode_clip(slowing, 3, "slowing.mkv", 30)) == found[::3]
    assert red(read_first_frames(slowing, 6, 10, FrameTransform())) == found[:18:3]


def save_gif(path, numbers, duration):
    images = [Image.fromarray(numbered(number)) for number in numbers]
    images[0].save(path, save_all=True, append_images=images[1:], duration=duration)
    return path


def test_the_delays_of_a_gif_are_kept(tmp_path):
    delays = save_gif(tmp_path / "delays.gif", range(12), [100] * 6 + [500] * 6)
    merged = save_gif(tmp_path / "merged.gif", [0, 0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 3], 100)
    assert len(decode_all(merged)) == 4, "Pillow must merge equal frames"
    assert frame_rate(delays) == frame_rate(merged) == 10
    assert red(decode_clip(delays, 1, "delays", 10)) == [*range(6), *np.repeat(np.arange(6, 12), 5)]
    assert red(decode_clip(merged, 1, "merged", 10)) == [0, 0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 3]
    single = tmp_path / "single.gif"
    Image.fromarray(numbered(7)).save(single)
    assert frame_rate(single) is None and red(decode_clip(single, 1, "single", 10)) == [7]
    np.save(tmp_path / "merged.npy", np.arange(12.0)[:, None])
    out = convert(VideoSource(tmp_path), tmp_path / "out", ConversionOptions())
    data = ShardDataset(out, None, split="all", action_offset=0)
    assert data.fps == 10 and data.episode_lengths.tolist() == [36, 12, 1]
    assert data.episode(1)["actions"][:, 0].tolist() == list(range(12))


def test_frames_without_a_common_rate_need_one(tmp_path):
    times = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.05, 20))
    write_video(tmp_path / "webcam.mp4", [numbered(k) for k in range(20)], times=times, fps=30)
    with pytest.raises(
        ValueError, match=r"webcam.mp4 shows its frames at uneven times .*: give the rate .* with --fps"
    ):
        VideoSource(tmp_path)
    out = convert(VideoSource(tmp_path, fps=20), tmp_path / "out", ConversionOptions())
    found = ShardDataset(out, None, split="all").episode(0)["pixel_values_videos"][:, 0].float().mean((1, 2)) / 10
    expected = [np.searchsorted(times, times[0] + k / 20 + 0.0125, "right") - 1 for k in range(len(found))]
    assert found.round().tolist() == expected


@pytest.mark.parametrize("fps", [29.97, 30, 50])
def test_even_frames_with_rounded_times_count_once_each(tmp_path, fps):
    """Matroska rounds to milliseconds, GIF to hundredths of a second."""
    frames = [numbered(k) for k in range(20)]
    path = write_video(tmp_path / "a.mkv", frames, times=[k / fps for k in range(20)], fps=30)
    assert red(decode_clip(path, 1, "a.mkv")) == list(range(20))


def test_raw_video_has_no_times_and_counts_each_frame(tmp_path):
    path = write_video(tmp_path / "a.h264", [numbered(k) for k in range(12)], container="h264")
    assert red(decode_clip(path, 3, "a.h264")) == [0, 3, 6, 9]
    assert len(read_first_frames(path, 4, 10, FrameTransform(8, 8))) == 4


def test_first_frames_are_resized_as_training_data_are(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    for size in (4, 16):
        transform = FrameTransform(size, size)
        np.testing.assert_array_equal(read_first_frames(tmp_path / "a.png", 8, 10, transform), [transform(image)])
    smooth = read_first_frames(tmp_path / "a.png", 8, 10, FrameTransform(64, 64))[0].astype(int)
    assert len(np.unique(smooth[0, :16, 0])) > 2, "enlarged images must not be blocky"


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_images_deeper_than_8_bits_are_refused(kind):
    import io

    buffer = io.BytesIO()
    Image.fromarray(np.full((16, 24), 500, np.uint16)).save(buffer, kind)
    for image in (buffer.getvalue(), np.full((16, 24, 3), 500, np.uint16), np.zeros((16, 24, 1), np.float32)):
        with pytest.raises(
            ValueError, match=r"row 3: the image has values of type (uint16|float32) \(a depth map\?\)"
        ):
            as_rgb(image, "row 3")


def test_photographs_are_upright():
    import io

    orientation, buffer = Image.Exif(), io.BytesIO()
    orientation[0x0112] = 6
    Image.new("RGB", (40, 20)).save(buffer, "JPEG", exif=orientation)
    assert as_rgb(buffer.getvalue(), "photo").shape == (40, 20, 3)
