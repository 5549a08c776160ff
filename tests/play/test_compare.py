"""The simulator next to a dream: same state, same actions, forward and back together."""

import av
import numpy as np
import pytest

from dreamer_hf.action_space import ActionSpace
from dreamer_hf.dreams import Dreams
from dreamer_hf.play.action_sources import PatternActions
from dreamer_hf.play.devices import pygame
from dreamer_hf.play.game import Game
from dreamer_hf.play.session import PlaySession
from dreamer_hf.play.window import PlayWindow, open_display
from dreamer_hf.pusht.compare import RealPushT
from dreamer_hf.pusht.simulator import PushTSimulator
from dreamer_hf.start_frames import CONTEXT_FRAMES
from tiny import IMAGE_SIZE, make_world

RELATIVE = {"mean": [0.0, 0.0], "std": [12.0, 12.0], "min": [-35.0, -36.0], "max": [36.0, 35.0]}


@pytest.fixture(scope="module")
def pusht_world():
    """A world of the simulator's rate, with relative actions."""
    return make_world(fps=10, action_stats=RELATIVE)


@pytest.fixture
def real(pusht_world) -> RealPushT:
    return RealPushT(pusht_world.config, num_starts=2)


@pytest.fixture
def session(pusht_world, real) -> PlaySession:
    space = ActionSpace.from_config(pusht_world.config.dynamics_config)
    return PlaySession(Dreams(pusht_world, real.starts), PatternActions(space), side_by_side=real)


def frames_of(session, steps) -> list[np.ndarray]:
    frames = []
    for _ in range(steps):
        assert session.advance()
        frames.append(session.side_by_side.frame)
    return frames


def test_dream_and_simulator_begin_with_the_same_image(session, real):
    for start in range(2):
        np.testing.assert_array_equal(real.frame, session.dream.frame)
        np.testing.assert_array_equal(real.frame, real.starts.pixel_values_videos[start, -1].permute(1, 2, 0))
        frames_of(session, 2)
        session.next_start()


def test_the_simulator_gets_the_actions_of_the_dream(session, real):
    frames = frames_of(session, 6)
    simulator = PushTSimulator(IMAGE_SIZE, relative=True)
    simulator.reset(0, CONTEXT_FRAMES)
    for step, frame in enumerate(frames):
        simulator.step(session.source.action(step))
        np.testing.assert_array_equal(frame, simulator.render())
    error = np.square(frames[-1] / 255.0 - session.dream.frame / 255.0).mean()
    assert len(real.psnr) == 6 and real.psnr[-1] == pytest.approx(-10 * np.log10(error))
    assert "at 1," in real.summary() and "at 4" in real.summary()


def test_a_rewind_takes_the_simulator_back_as_well(session):
    frames = [session.side_by_side.frame, *frames_of(session, 13)]
    session.rewind()
    np.testing.assert_array_equal(session.side_by_side.frame, frames[3])
    np.testing.assert_array_equal(frames_of(session, 10), frames[4:])


def test_statistics_tell_relative_from_absolute_actions(pusht_world):
    absolute = make_world(fps=10)
    assert RealPushT(pusht_world.config, num_starts=1).simulator.relative
    assert not RealPushT(absolute.config, num_starts=1).simulator.relative
    assert RealPushT(absolute.config, relative=True, num_starts=1).simulator.relative
    with pytest.raises(ValueError, match="PushT has 2 actions but the world has 1"):
        RealPushT(make_world(action_dim=1, action_names=None, action_stats=None).config)
    wide = make_world(fps=10).config
    wide.tokenizer_config.image_size = (16, 24)
    with pytest.raises(ValueError, match="PushT has square frames but the world's are 16x24"):
        RealPushT(wide)


def test_both_are_in_the_window(session, real):
    open_display()
    window = PlayWindow((IMAGE_SIZE, IMAGE_SIZE), session.dreams.space, captions=("simulator", "dream"))
    Game(session, window, steps=3).run()
    scale = window.image.w // IMAGE_SIZE
    for place, frame in zip(window.images, (real.frame, session.dream.frame), strict=True):
        shown = pygame.surfarray.array3d(window.surface.subsurface(place)).swapaxes(0, 1)
        np.testing.assert_array_equal(shown, frame.repeat(scale, 0).repeat(scale, 1))
    assert not window.images[0].colliderect(window.images[1])
    pygame.quit()


def test_headless_it_prints_how_close_the_dream_is_and_records_both(run_here, pusht_world, tmp_path):
    pusht_world.save_pretrained(tmp_path / "world")
    video = tmp_path / "both.mp4"
    arguments = ("--headless", "--steps", 5, "--compare", "--script", "circle", "--record", video)
    status, printed, errors = run_here(*arguments, model=tmp_path / "world")
    assert status == 0, errors
    assert "PSNR of the dream against the simulator" in printed and " at 4" in printed
    with av.open(str(video)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 5 and frames[0].shape == (256, 512, 3)
