"""Work whose results go to addresses, on a real cluster: the files of one machine, at S3 and on the Hub."""

import os
import subprocess
import sys

import pytest

from dreamer_hf.data.conversion_options import ConversionOptions
from dreamer_hf.data.convert import convert
from dreamer_hf.data.sources.video_source import VideoSource
from hub_stand_in import NEW_FILES, HubStandIn
from s3_server import serving_s3
from tiny import make_world, save_world
from tiny_videos import frames_of, write_video
from waiting import wait_until

pytestmark = pytest.mark.cluster
REPO_ID = "someone/tiny-shards"
NUM_VIDEOS = 40


def content(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def videos(tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    write_video(videos / "00.mp4", frames_of(0, count=40, size=(16, 16)), "libx264", "yuv444p")
    for number in range(1, NUM_VIDEOS):
        (videos / f"{number:02d}.mp4").hardlink_to(videos / "00.mp4")
    return videos


def conversion(videos, episodes_per_shard, address, cluster) -> list[str]:
    command = [sys.executable, "-m", "dreamer_hf", "convert", "video", "--video_dir", str(videos)]
    command += ["--episodes_per_shard", str(episodes_per_shard), "--output_dir", address]
    return [*command, "--ray", cluster.address]


def refusal(command, environment) -> str:
    """Return the sentence with which a command ends that has bad input."""
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_shards_and_latents_at_addresses(cluster, videos, tmp_path):
    """First a node may not write to the bucket. Then two nodes work, and the command is killed and continues."""
    with serving_s3() as s3, HubStandIn(REPO_ID, "secret") as hub:
        variables = {**s3.environment, **hub.environment(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
        environment = os.environ | variables
        stranger = cluster.add_node(env_vars=variables | {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""})
        sentence = refusal(conversion(videos, 1, "s3://bucket/refused", cluster), environment)
        assert "on node" in sentence and "s3://bucket/refused cannot be written" in sentence, sentence
        cluster.kill_node(stranger)
        for _ in range(2):
            cluster.add_node(env_vars=variables)
        expected = convert(VideoSource(videos), tmp_path / "frames", ConversionOptions(episodes_per_shard=1))
        command = conversion(videos, 1, "s3://bucket/frames", cluster)
        a_killed_command_continues(s3, command, environment, content(expected))
        expected = convert(VideoSource(videos), tmp_path / "fewer", ConversionOptions(episodes_per_shard=10))
        hub.files |= NEW_FILES
        subprocess.run(conversion(videos, 10, f"hf://datasets/{REPO_ID}", cluster), check=True, env=environment)
        assert hub.files == NEW_FILES | content(expected)
        latents_at_s3_of_frames_on_the_hub(s3, cluster.address, environment, tmp_path)


def a_killed_command_continues(s3, command, environment, expected) -> None:
    def shards() -> dict:
        found = s3.files.ls("bucket/frames", detail=True, refresh=True) if s3.names("frames") else []
        return {each["name"]: each["LastModified"] for each in found if "shard_" in each["name"]}

    driver = subprocess.Popen(command, env=environment)
    wait_until(lambda: len(shards()) >= 2, "two shards", 600)
    driver.kill()
    driver.wait()
    done = shards()
    assert 2 <= len(done) < NUM_VIDEOS
    subprocess.run([*command, "--resume"], check=True, env=environment)
    assert s3.content("frames") == expected
    assert done.items() <= shards().items(), "finished shards stay"


def latents_at_s3_of_frames_on_the_hub(s3, ray, environment, folder) -> None:
    save_world(folder / "world", make_world(fps=10, action_names=["x", "y"]))
    command = [sys.executable, "-m", "dreamer_hf", "encode-latents", "--tokenizer", folder / "world"]
    command += ["--data_dir", REPO_ID, "--output_dir"]
    subprocess.run([*command, folder / "latents"], check=True, env=environment)
    subprocess.run([*command, "s3://bucket/latents", "--ray", ray], check=True, env=environment)
    assert s3.content("latents") == content(folder / "latents")
