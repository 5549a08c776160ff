"""The session in a real world: steps, resets, rewinds, and what recorders get."""

import numpy as np
import pytest
import torch

from dreamer_hf.action_space import ActionSpace
from dreamer_hf.dreams import Dreams
from dreamer_hf.play.action_sources import PatternActions, ScriptedActions
from dreamer_hf.play.session import PlaySession
from dreamer_hf.seeded_noise import SeededNoise
from tiny import IMAGE_SIZE, make_starts, make_world


def space_of(world) -> ActionSpace:
    return ActionSpace.from_config(world.config.dynamics_config)


class Diary:
    """A recorder that keeps everything in memory."""

    def __init__(self, fails=False):
        self.steps, self.cuts, self.closed, self.fails = [], [], False, fails

    def add(self, before, action, after, states=(None, None), trusts=(None, None)):
        self.steps.append((before, action, after))

    def cut(self):
        self.cuts.append(len(self.steps))

    def close(self):
        self.closed = True
        if self.fails:
            raise OSError("no space left")


@pytest.fixture
def session(world, starts):
    return PlaySession(Dreams(world, starts), PatternActions(space_of(world)), recorders=[Diary()])


def advance(session, steps):
    frames = []
    for _ in range(steps):
        assert session.advance()
        frames.append(session.dream.frame)
    return frames


def test_it_begins_with_the_last_context_frame_and_action(session, starts):
    assert session.dream.step == 0
    np.testing.assert_array_equal(session.dream.frame, starts.pixel_values_videos[0, -1].permute(1, 2, 0))
    np.testing.assert_array_equal(session.dream.action, starts.actions[0, -1])


def test_without_a_context_action_it_begins_at_rest(world, starts):
    starts.action_mask[:] = False
    session = PlaySession(Dreams(world, starts), ScriptedActions(np.zeros((1, 2))))
    assert session.dream.action.tolist() == session.dreams.space.rest.tolist()


def test_frames_are_those_of_the_plain_rollout(session, world, starts):
    frames = advance(session, 6)
    assert frames[0].shape == (IMAGE_SIZE, IMAGE_SIZE, 3) and frames[0].dtype == np.uint8
    rollout = world.start_rollout(starts[0], generator=SeededNoise(0))
    for step, frame in enumerate(frames):
        pixels = rollout.step(torch.from_numpy(session.source.action(step))[None]).pixel_values[0]
        np.testing.assert_array_equal(frame, (pixels * 255).round().byte().permute(1, 2, 0))


def test_recorders_get_each_step_and_each_cut(session):
    frames = advance(session, 3)
    session.next_start()
    advance(session, 2)
    session.rewind()
    diary = session.recorders[0]
    np.testing.assert_array_equal(diary.steps[1][0], frames[0])
    np.testing.assert_array_equal(diary.steps[1][1], session.source.action(1))
    np.testing.assert_array_equal(diary.steps[1][2], frames[1])
    assert len(diary.steps) == 5 and diary.cuts == [3, 5]


def test_the_next_start_is_another_one_and_the_last_is_followed_by_the_first(session, starts):
    advance(session, 2)
    for expected in (1, 0):
        session.next_start()
        assert (session.dream.start, session.dream.step) == (expected, 0)
        np.testing.assert_array_equal(session.dream.frame, starts.pixel_values_videos[expected, -1].permute(1, 2, 0))


@pytest.mark.parametrize("steps", [4, 10, 13, 20, 37])
def test_a_rewind_goes_ten_frames_back_and_the_same_future_follows(session, steps):
    frames = [session.dream.frame, *advance(session, steps)]
    goal = max(0, steps - 10)
    session.rewind()
    assert session.dream.step == goal
    np.testing.assert_array_equal(session.dream.frame, frames[goal])
    for expected, frame in zip(frames[goal + 1 :], advance(session, steps - goal)):
        np.testing.assert_array_equal(frame, expected)


def test_rewinds_add_up(session):
    frames = [session.dream.frame, *advance(session, 35)]
    for expected in (25, 15, 5, 0, 0):
        session.rewind()
        assert session.dream.step == expected
        np.testing.assert_array_equal(session.dream.frame, frames[expected])


def test_after_a_rewind_another_action_gives_another_future(world, starts):
    source = ScriptedActions(np.full((20, 2), 100.0))
    session = PlaySession(Dreams(world, starts), source)
    frames = advance(session, 12)
    session.rewind()
    source.actions = np.full((20, 2), 400.0, dtype=np.float32)
    assert not np.array_equal(advance(session, 10)[-1], frames[-1])


def test_a_script_ends_the_session(world, starts):
    session = PlaySession(Dreams(world, starts), ScriptedActions(np.zeros((2, 2))))
    assert [session.advance() for _ in range(3)] == [True, True, False]
    assert session.dream.step == 2


def test_every_recording_is_finished_even_if_one_fails(world, starts):
    diaries = [Diary(), Diary(fails=True), Diary()]
    with (
        pytest.raises(OSError, match="no space"),
        PlaySession(Dreams(world, starts), ScriptedActions(np.zeros((2, 2))), diaries) as session,
    ):
        session.advance()
    assert all(diary.closed for diary in diaries)


def test_start_frames_of_another_world_are_refused(world, starts):
    with pytest.raises(ValueError, match="width 3"):
        PlaySession(Dreams(world, make_starts(action_dim=3)), ScriptedActions(np.zeros((1, 2))))


def test_a_world_without_names_statistics_or_rate_can_be_played():
    world = make_world(action_dim=3, action_names=None, action_stats=None, fps=None)
    session = PlaySession(Dreams(world, make_starts(action_dim=3)), PatternActions(space_of(world)))
    assert session.dreams.fps == 10 and session.dreams.space.names == ("action 0", "action 1", "action 2")
    assert session.advance()


def test_a_dream_that_is_given_is_used_for_every_dream(world, starts):
    """Its rollout may be compiled. Dreams, and what follows a rewind, are those of a session that begins its own."""
    dreams, source = Dreams(world, starts), PatternActions(space_of(world))
    (given,) = dreams.begin([1], [5])
    rollout = given.rollout
    ours, own = PlaySession(dreams, source, dream=given), PlaySession(Dreams(world, starts), source)
    for session in (ours, own):
        advance(session, 12)
        session.rewind()
        session.next_start()
    np.testing.assert_array_equal(advance(ours, 5), advance(own, 5))
    assert ours.dream.rollout is rollout
