"""Small LeRobot datasets written by hand, with whatever a test wants to be unusual about them."""

import json

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dreamer_hf.data import ShardDataset
from dreamer_hf.data.conversion_options import ConversionOptions
from dreamer_hf.data.convert import convert
from dreamer_hf.data.sources.lerobot_source import LeRobotSource

LENGTHS = (8, 5, 6)
FRAMES = np.concatenate([np.arange(length) for length in LENGTHS])
OWNERS = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
CAMERA = "observation.images.top"


def frame_of(episode, frame, size=(16, 24)):
    return np.full((*size, 3), (40 * episode, 20 * frame, 200), np.uint8)


def encoded(episode, frame):
    return cv2.imencode(".png", frame_of(episode, frame)[..., ::-1])[1].tobytes()


def write_lerobot(root, columns=None, features=None, info=None, video=False, camera_info=None):
    """A LeRobotDataset v3.0 written by hand, whose frames tell their episode and number.

    Args:
        columns: of the data table, which replace or join the usual ones; None leaves one out.
        features: further ones, or others, of the info.
        info: other keys of the info.
        video: one file of video instead of images in the table.
        camera_info: further keys of the camera's feature.
    """
    kind = "video" if video else "image"
    features = {
        "action": {"dtype": "float32", "shape": [2], "names": None},
        CAMERA: {"dtype": kind, "shape": [16, 24, 3], "names": None} | (camera_info or {}),
        "frame_index": {"dtype": "int64", "shape": [1], "names": None},
    } | (features or {})
    actions = np.stack([FRAMES, OWNERS], axis=1).astype(np.float32)
    images = [{"bytes": encoded(*which), "path": None} for which in zip(OWNERS, FRAMES, strict=True)]
    table = {
        "action": pa.array(list(actions), pa.list_(pa.float32())),
        CAMERA: None if video else pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "frame_index": pa.array(FRAMES),
        "episode_index": pa.array(OWNERS),
    } | (columns or {})
    numbers, starts = np.arange(len(LENGTHS)), np.concatenate([[0], np.cumsum(LENGTHS)[:-1]])
    episodes = {
        "episode_index": numbers,
        "length": LENGTHS,
        "data/chunk_index": 0 * numbers,
        "data/file_index": 0 * numbers,
    }
    if video:
        episodes |= {f"videos/{CAMERA}/chunk_index": 0 * numbers, f"videos/{CAMERA}/file_index": numbers}
        episodes |= {f"videos/{CAMERA}/from_timestamp": 0.0 * starts}
    paths = {"data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"}
    paths |= {"video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"}
    described = {"codebase_version": "v3.0", "fps": 10, "total_episodes": len(LENGTHS), "features": features} | paths
    for folder in ("meta/episodes/chunk-000", "data/chunk-000"):
        (root / folder).mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(described | (info or {})))
    pq.write_table(pa.table(episodes), root / "meta/episodes/chunk-000/file-000.parquet")
    present = {name: column for name, column in table.items() if column is not None}
    pq.write_table(pa.table(present), root / "data/chunk-000/file-000.parquet")
    for episode in numbers if video else ():
        path = root / f"videos/{CAMERA}/chunk-000/file-{episode:03d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=10, options={"crf": "0"})
            stream.height, stream.width, stream.pix_fmt = 16, 24, "yuv444p"
            for frame in range(LENGTHS[episode]):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_of(episode, frame), format="rgb24")))
            container.mux(stream.encode(None))
    return root


def converted(root, out, **options):
    source = {key: options.pop(key) for key in ("action_key", "episodes") if key in options}
    convert(LeRobotSource(root, "me/set", **source), out, ConversionOptions(**options))
    return ShardDataset(out, None, split="all", action_offset=0)


def actions_of(data):
    return [data.episode(position)["actions"].numpy() for position in range(data.num_episodes)]


def numbers_of(data, position):
    """Episode and frame numbers that the frames of an episode show."""
    colors = data.episode(position)["pixel_values_videos"][:, :, 5, 5].numpy()
    return {round(red / 40) for red in colors[:, 0]}, (colors[:, 1] / 20).round().astype(int).tolist()
