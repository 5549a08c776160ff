import cv2
import datasets
import numpy as np
import pytest

from dreamer_hf.data import MixtureDataset, ShardDataset
from dreamer_hf.data.conversion_options import ConversionOptions, JobOptions
from dreamer_hf.data.convert import convert
from dreamer_hf.data.inspect_dataset import describe
from dreamer_hf.data.sources.table_source import TableColumns, TableSource, load_table
from dreamer_hf.data.sources.video_source import VideoSource
from tiny_videos import frames_of, write_video


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    (folder / "more").mkdir(parents=True)
    write_video(folder / "a.mp4", frames_of(0), "libx264", "yuv444p")
    write_video(folder / "b.gif", frames_of(1), "gif", "rgb8")
    write_video(folder / "more" / "c.mp4", frames_of(2, count=7), "libx264", "yuv444p")
    np.save(folder / "a.npy", np.arange(20, dtype=np.float64).reshape(10, 2))
    (folder / "more" / "c.csv").write_text("gas,wheel\n" + "\n".join(f"{i},{-i}" for i in range(7)))
    return folder


def episodes(folder, **options):
    dataset = ShardDataset(folder, None, split="all", action_offset=0, **options)
    return [dataset.episode(i) for i in range(dataset.num_episodes)]


def test_videos_with_and_without_actions(videos, tmp_path):
    out = convert(VideoSource(videos), tmp_path / "out", ConversionOptions(target_fps=5), JobOptions(num_workers=1))
    found = episodes(out)
    assert [len(item["actions"]) for item in found] == [5, 5, 4]
    for number, item in enumerate(found):
        shown = item["pixel_values_videos"].permute(0, 2, 3, 1).numpy().astype(float)
        original = frames_of(number, len(shown) * 2)[::2]
        # A GIF has 256 colors and dithers: only its mean is right.
        difference = (shown - original).mean((1, 2)) if number == 1 else shown - original
        assert np.abs(difference).max() < (20 if number == 1 else 6)
    assert found[0]["actions"][:, 0].tolist() == [0, 4, 8, 12, 16] and found[2]["actions"][3].tolist() == [6, -6]
    assert [bool(item["action_mask"].any()) for item in found] == [True, False, True]
    assert ShardDataset(out, 2).action_names == ["gas", "wheel"]


def test_unlabeled_videos_mix_with_labeled_data(videos, tmp_path):
    labeled = convert(VideoSource(videos, episodes="0"), tmp_path / "labeled", ConversionOptions())
    unlabeled = convert(VideoSource(videos, episodes="1"), tmp_path / "unlabeled", ConversionOptions())
    datasets_ = [ShardDataset(folder, 4, split="all") for folder in (labeled, unlabeled)]
    assert datasets_[1].action_dim == 0 and datasets_[1].action_stats is None
    mixture = MixtureDataset(datasets_)
    item = mixture[len(datasets_[0]) + 2]
    assert item["actions"].shape == (4, 2) and not item["action_mask"].any() and mixture.action_dim == 2


def test_bad_videos_and_actions_are_named(videos, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no videos"):
        VideoSource(tmp_path / "nothing")
    np.save(videos / "a.npy", np.zeros((9, 2)))
    with pytest.raises(ValueError, match=r"episode 0 has actions of shape \(9, 2\)"):
        convert(VideoSource(videos), tmp_path / "out", ConversionOptions())
    np.save(videos / "a.npy", np.zeros((10, 3)))
    with pytest.raises(ValueError, match="bring them to one width"):
        VideoSource(videos)
    for table in ("gas,wheel\n1,fast", "gas,wheel\n", ""):
        (videos / "more" / "c.csv").write_text(table)
        with pytest.raises(ValueError, match=r"c\.csv does not hold a table of numbers"):
            VideoSource(videos)
    (videos / "more" / "c.csv").unlink()
    (videos / "b.gif").write_bytes(b"GIF89a nonsense")
    with pytest.raises(ValueError, match=r"b.gif"):
        convert(VideoSource(videos), tmp_path / "other", ConversionOptions())
    write_video(videos / "b.mp4", frames_of(1), "libx264", "yuv444p", fps=30)
    (videos / "b.gif").unlink()
    with pytest.raises(ValueError, match="give the common rate with --fps"):
        VideoSource(videos)


def frame_table():
    rows = {"camera": [], "act": [], "ep": []}
    for episode in range(5):
        for step, frame in enumerate(frames_of(episode, 6 + episode)):
            rows["camera"].append({"bytes": cv2.imencode(".png", frame[..., ::-1])[1].tobytes(), "path": None})
            rows["act"].append([float(episode), float(step)])
            rows["ep"].append(f"episode {episode}")
    features = {
        "camera": datasets.Image(),
        "act": datasets.List(datasets.Value("float32")),
        "ep": datasets.Value("string"),
    }
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def check_frames(folder, numbers):
    found = episodes(folder)
    assert [int(item["actions"][0, 0]) for item in found] == numbers
    for number, item in zip(numbers, found, strict=True):
        shown = item["pixel_values_videos"].permute(0, 2, 3, 1).numpy()
        np.testing.assert_array_equal(shown, frames_of(number, 6 + number))
        assert item["actions"][:, 1].tolist() == list(range(6 + number))


@pytest.mark.slow
def test_image_tables_local_saved_and_streamed(tmp_path):
    table = frame_table()
    columns = TableColumns("camera", "act", "ep")
    convert(TableSource(table, columns, episodes="1:4"), tmp_path / "local", ConversionOptions(episodes_per_shard=2))
    check_frames(tmp_path / "local", [1, 2, 3])
    table.save_to_disk(tmp_path / "saved")
    saved = TableSource(load_table(str(tmp_path / "saved"), "train"), columns)
    convert(saved, tmp_path / "disk", ConversionOptions(episodes_per_shard=2), JobOptions(num_workers=2))
    check_frames(tmp_path / "disk", [0, 1, 2, 3, 4])
    stream = TableSource(load_table(str(tmp_path / "saved"), "train", streaming=True), columns)
    assert stream.numbers is None
    convert(stream, tmp_path / "stream", ConversionOptions(episodes_per_shard=2))
    check_frames(tmp_path / "stream", [0, 1, 2, 3, 4])


def test_an_interrupted_stream_continues_where_it_stopped(tmp_path, monkeypatch):
    source = TableSource(frame_table().to_iterable_dataset(), TableColumns("camera", "act", "ep"))
    out = convert(source, tmp_path / "out", ConversionOptions(episodes_per_shard=2))
    conversion_plan = (tmp_path / "plan", ConversionOptions(episodes_per_shard=2))
    calls = []

    def fail_in_third_shard(path, *args, **kwargs):
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return prepare_shard(path, *args, **kwargs)

    from dreamer_hf.data import shard_task as converting

    prepare_shard = converting.prepare_shard
    monkeypatch.setattr(converting, "prepare_shard", fail_in_third_shard)
    with pytest.raises(KeyboardInterrupt):
        convert(source, *conversion_plan)
    monkeypatch.setattr(converting, "prepare_shard", prepare_shard)
    convert(source, *conversion_plan, JobOptions(resume=True))
    assert ShardDataset(out, 2, split="all").source_episodes.tolist() == [0, 1, 2, 3, 4]
    check_frames(tmp_path / "plan", [0, 1, 2, 3, 4])


def test_tables_of_arrays(tmp_path):
    frames = np.concatenate([frames_of(number, 6) for number in range(2)])
    features = datasets.Features(
        {
            "frame": datasets.Array3D((16, 24, 3), "uint8"),
            "gas": datasets.Value("float64"),
            "ep": datasets.Value("int32"),
        }
    )
    rows = {"frame": list(frames), "gas": np.arange(12.0), "ep": np.repeat([0, 1], 6)}
    table = datasets.Dataset.from_dict(rows, features=features)
    found = episodes(
        convert(TableSource(table, TableColumns("frame", "gas", "ep")), tmp_path / "out", ConversionOptions())
    )
    shown = np.concatenate([item["pixel_values_videos"].permute(0, 2, 3, 1).numpy() for item in found])
    np.testing.assert_array_equal(shown, frames)
    assert found[1]["actions"].squeeze(1).tolist() == list(range(6, 12))


def test_video_tables(videos, tmp_path):
    rows = {"clip": [str(videos / "a.mp4"), str(videos / "more" / "c.mp4")], "act": [[[1.0]] * 10, [[2.0]] * 7]}
    table = datasets.Dataset.from_dict(rows).cast_column("clip", datasets.Video())
    found = episodes(
        convert(
            TableSource(table, TableColumns("clip", "act"), fps=10), tmp_path / "out", ConversionOptions(target_fps=5)
        )
    )
    assert [item["actions"].squeeze(1).tolist() for item in found] == [[1.0] * 5, [2.0] * 4]


def test_unknown_columns_and_scattered_episodes_are_refused(tmp_path):
    table = frame_table()
    for columns, message in [
        (("frame", "act", "ep"), "no such column as 'frame'; --image_column can be: camera"),
        (("act", "act", "ep"), "no such column as 'act'; --image_column can be: camera"),
        (("camera", "camera", "ep"), "no such column as 'camera'; --action_column can be: act"),
        (("camera", "act", "camera"), "no such column as 'camera'; --episode_column can be: ep"),
    ]:
        with pytest.raises(ValueError, match=f"{message}\\."):
            TableSource(table, TableColumns(*columns))
    with pytest.raises(ValueError, match="images need --episode_column"):
        TableSource(table, TableColumns("camera", "act"))
    with pytest.raises(ValueError, match="do not follow each other"):
        TableSource(table.shuffle(seed=0), TableColumns("camera", "act", "ep"))
    with pytest.raises(FileNotFoundError, match="cannot be loaded"):
        load_table(str(tmp_path / "nowhere"), "train")


def clip_with_table(folder, content, name="a.csv", count=12):
    folder.mkdir()
    write_video(folder / "a.mp4", frames_of(0, count), "libx264", "yuv444p")
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


BOM = "\ufeff"
ROWS = "".join(f"{k},{-k}\n" for k in range(12))


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (f"{BOM}{ROWS}", None),
        (f"{BOM}x,y\n{ROWS}", ["x", "y"]),
        (f'{BOM}"x","y"\r\n' + ROWS.replace("\n", "\r\n"), ["x", "y"]),
        (f'"x, left", y\n{ROWS}\n\n', ["x, left", "y"]),
        ('"x";"y"\n' + "".join(f"{k},0;{-k},0\n" for k in range(12)), ["x", "y"]),
        ("".join(f'"{k}","{-k}"\n' for k in range(12)), None),
        ("".join(f"{k}.0e0, -{k}\n" for k in range(12)), None),
    ],
    ids=["mark", "mark and names", "quotes", "comma in a name", "semicolons", "quoted numbers", "spaces"],
)
def test_csv_files_as_spreadsheets_write_them(tmp_path, content, names):
    folder = clip_with_table(tmp_path / "clips", content)
    out = convert(VideoSource(folder), tmp_path / "out", ConversionOptions())
    (item,) = episodes(out)
    np.testing.assert_array_equal(item["actions"], [[k, -k] for k in range(12)])
    assert ShardDataset(out, 2, split="all").action_names == names
    assert "lengths" in describe(out, 2)


@pytest.mark.parametrize(
    "content",
    [
        "x, left,y\n" + ROWS, '"x, left",y,z\n' + ROWS, "1,,3\n" + ROWS, "x,1\n" + ROWS, "1,2\n1\n", "x,y\n1,2,3\n",
        "x,y\n", "", '"x,y\n1,2\n', "x,y\n1,two\n", b"\xff\xfe1,2", "\0\n",
    ],
)  # fmt: skip
def test_tables_that_do_not_fit_are_refused(tmp_path, content):
    with pytest.raises(
        ValueError, match=r"a\.csv does not hold a table of numbers, one row of actions per frame"
    ) as caught:
        VideoSource(clip_with_table(tmp_path / "clips", content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "array", [np.array([["a", "b"]] * 12), np.zeros(12), np.zeros((0, 2)), np.array([[None, 1]] * 12)]
)
def test_arrays_that_are_not_a_table_of_numbers_are_refused(tmp_path, array):
    folder = clip_with_table(tmp_path / "clips", b"", name="a.npy")
    np.save(folder / "a.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=r"a\.npy does not hold a table of numbers"):
        VideoSource(folder)


def test_large_numbers_next_to_a_clip_are_differenced_before_rounding(tmp_path):
    folder = clip_with_table(tmp_path / "clips", "".join(f"{20_000_001 + k}\n" for k in range(12)))
    (item,) = episodes(convert(VideoSource(folder), tmp_path / "out", ConversionOptions(relative_actions=True)))
    assert item["actions"][:, 0].tolist() == [0, *[1] * 11]


def test_hidden_files_and_lfs_pointers_among_videos(tmp_path):
    folder = clip_with_table(tmp_path / "clips", ROWS)
    (folder / "._a.mp4").write_bytes(b"\0\5\x16\7")
    (folder / ".thumbnails").mkdir()
    (folder / ".thumbnails" / "b.mp4").write_bytes(b"")
    assert [path.name for path in VideoSource(folder).paths] == ["a.mp4"]
    (folder / "c.mp4").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ValueError, match=r"c\.mp4 is a Git LFS pointer"):
        VideoSource(folder)


def image_cell(episode, frame=0):
    return {"bytes": cv2.imencode(".png", frames_of(episode)[frame][..., ::-1])[1].tobytes(), "path": None}


def small_table(image=None, action=None, episode=(0, 0, 1, 1), **features):
    rows = {"image": [image_cell(0)] * 4 if image is None else image, "episode": list(episode)}
    rows["action"] = [[1.0]] * 4 if action is None else action
    return datasets.Dataset.from_dict(rows, features=datasets.Features({
        "image": datasets.Image(), "episode": datasets.Value("int64"),
        "action": datasets.List(datasets.Value("float64")), **features,
    }))  # fmt: skip


COLUMNS = TableColumns("image", "action", "episode")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"episode": (0, 1, 0, 1)}, "rows of one 'episode' do not follow each other"),
        ({"episode": (0, 0, None, 1)}, r"a row has no 'episode' \(null\)"),
        ({"episode": (0, 0, None, None)}, r"a row has no 'episode' \(null\)"),
        (
            {"image": [image_cell(0), None, image_cell(0), image_cell(0)]},
            r"episode 0, frame 1: the image is missing \(null\)",
        ),
        (
            {"action": [[1.0], [1.0], [1.0], None]},
            r"episode 1, frame 1: the action in column 'action' is missing \(null\)",
        ),
        (
            {"action": [[1.0], [None], [1.0], [1.0]]},
            r"episode 0, frame 1: the action in column 'action' is missing \(null\)",
        ),
        (
            {"action": [[1.0], [1.0], [1.0], [1.0, 2.0]]},
            "episode 1, frame 1: the action has 2 values, earlier ones have 1",
        ),
    ],
)
def test_tables_with_holes_are_refused_in_one_sentence(tmp_path, table, message, streaming):
    rows = small_table(**table)
    with pytest.raises(ValueError, match=message) as caught:
        source = TableSource(rows.to_iterable_dataset() if streaming else rows, COLUMNS)
        convert(source, tmp_path / "out", ConversionOptions(episodes_per_shard=1))
    assert "\n" not in str(caught.value) and not (tmp_path / "out" / "metadata.json").exists()


@pytest.mark.parametrize("streaming", [False, True])
def test_fields_of_structs_and_several_action_columns(tmp_path, streaming):
    rows = {
        "obs": [{"image": image_cell(k // 3, k % 3), "arm": [float(k), 0.5]} for k in range(6)],
        "gripper": [k % 2 for k in range(6)],
        "meta": [{"episode": k // 3} for k in range(6)],
    }
    features = {
        "obs": {"image": datasets.Image(), "arm": datasets.List(datasets.Value("float32"))},
        "gripper": datasets.Value("int8"),
        "meta": {"episode": datasets.Value("int64")},
    }
    table = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    columns = TableColumns("obs/image", "obs/arm,gripper", "meta/episode")
    source = TableSource(table.to_iterable_dataset() if streaming else table, columns)
    found = episodes(convert(source, tmp_path / "out", ConversionOptions(target_fps=None)))
    for number, item in enumerate(found):
        np.testing.assert_array_equal(item["actions"], [[3 * number + k, 0.5, (3 * number + k) % 2] for k in range(3)])
        shown = item["pixel_values_videos"].permute(0, 2, 3, 1).numpy()
        np.testing.assert_array_equal(shown, frames_of(number)[:3])
    with pytest.raises(ValueError, match=r"no such column as 'action'; --action_column can be: .*obs/arm, gripper"):
        TableSource(table, TableColumns("obs/image", "action", "meta/episode"))


def test_actions_of_two_dimensions_and_of_all_frames(tmp_path):
    rows = {"image": [image_cell(0, k) for k in range(6)], "episode": [0] * 6}
    rows["action"] = [[[20_000_001.0 + k, 0.25], [0.0, 1.0]] for k in range(6)]
    features = {
        "image": datasets.Image(),
        "episode": datasets.Value("int64"),
        "action": datasets.Array2D((2, 2), "float64"),
    }
    table = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    options = ConversionOptions(
        target_fps=5, relative_actions=True, absolute_action_dims=(1,), displacement_action_dims=(1,)
    )
    (item,) = episodes(convert(TableSource(table, COLUMNS, fps=10), tmp_path / "out", options))
    np.testing.assert_array_equal(item["actions"], [[0, 0.5, 0, 0], [2, 0.5, 0, 0], [2, 0.5, 0, 0]])


def test_deep_images_in_tables_are_refused(tmp_path):
    deep = {"bytes": cv2.imencode(".png", np.full((16, 24), 500, np.uint16))[1].tobytes(), "path": None}
    with pytest.raises(ValueError, match=r"episode 0, frame 0: the image has values of type uint16 \(a depth map\?\)"):
        convert(TableSource(small_table(image=[deep] * 4), COLUMNS), tmp_path / "out", ConversionOptions())


@pytest.mark.parametrize("quota", ["max 100000", "150000 100000", "", "nonsense"])
def test_only_the_cores_that_may_be_used_are_counted(tmp_path, monkeypatch, quota):
    from dreamer_hf.data import conversion_options

    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(conversion_options, "CGROUP_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 3, 5})
    assert conversion_options.available_cores() == (2 if quota.startswith("15") else 3)


def camera_table():
    table = frame_table()
    negative = [255 - cv2.imdecode(np.frombuffer(image["bytes"], np.uint8), 1) for image in raw_images(table)]
    encoded = [{"bytes": cv2.imencode(".png", image)[1].tobytes(), "path": None} for image in negative]
    wrist = datasets.Dataset.from_dict({"wrist": encoded}, datasets.Features({"wrist": datasets.Image()}))
    return datasets.concatenate_datasets([table, wrist], axis=1)


def raw_images(table):
    return table.cast_column("camera", datasets.Image(decode=False))["camera"]


def test_several_image_columns_are_cameras(tmp_path):
    table = camera_table()
    for number, source in enumerate((table, table.to_iterable_dataset())):
        source = TableSource(source, TableColumns("camera,wrist", "act", "ep"))
        assert source.camera_names == ["camera", "wrist"]
        found = episodes(convert(source, tmp_path / str(number), ConversionOptions()))
        for episode, item in enumerate(found):
            shown = item["pixel_values_videos"].movedim(-3, -1).numpy()
            np.testing.assert_array_equal(shown[:, 0], frames_of(episode, 6 + episode))
            np.testing.assert_array_equal(shown[:, 1], 255 - frames_of(episode, 6 + episode))


def test_unknown_cameras_are_refused():
    with pytest.raises(ValueError, match="no such column as 'hand'; --image_column can be: camera, wrist"):
        TableSource(camera_table(), TableColumns("camera,hand", "act", "ep"))
