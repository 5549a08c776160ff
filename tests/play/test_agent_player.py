"""An agent plays: in the dream, in turns with a person, and in the simulator next to the dream."""

import numpy as np
import pytest
import torch

from dreamer_hf.dreams import Dreams
from dreamer_hf.play.action_sources import ScriptedActions
from dreamer_hf.play.agent_player import AGENT_ACTS, PERSON_ACTS, AgentActions, AgentInSimulator
from dreamer_hf.play.devices import pygame
from dreamer_hf.play.game import Game
from dreamer_hf.play.session import PlaySession
from dreamer_hf.play.window import AMBER, PlayWindow, open_display
from dreamer_hf.start_frames import save_start_frames
from tiny import PUSHES, make_starts, tiny_agent


@pytest.fixture(scope="module")
def agent():
    return tiny_agent(tokenizer_changes={"image_size": 16}, num_tasks=2, task_names=["left", "right"])


def play(agent, script=None, **settings):
    """A session of the agent, whose person plays the action (1, 2) and nothing else."""
    dreams = Dreams(agent.world, make_starts())
    (dream,) = dreams.begin([0], [0])
    person = ScriptedActions(np.tile(np.array([1.0, 2.0], np.float32), (99, 1)) if script is None else script)
    source = AgentActions(agent, dream, person, **settings)
    return PlaySession(dreams, source, dream=dream), source


def test_the_agent_acts_until_it_hands_over(agent):
    session, source = play(agent, task="right")
    taken = []
    for step in range(6):
        if step in (2, 4):
            source.hand_over()
        assert source.actor == (PERSON_ACTS if step in (2, 3) else AGENT_ACTS)
        session.advance()
        taken.append(session.dream.action.tolist())
    assert taken[2] == taken[3] == [1.0, 2.0]
    assert all(action != [1.0, 2.0] for action in taken[:2] + taken[4:])
    grid = agent.actions.scale.from_bins(torch.arange(5)[:, None].expand(5, 2)).numpy()
    for action in taken[:2] + taken[4:]:
        assert all(np.isclose(grid[:, index], value).any() for index, value in enumerate(action))


def test_the_agent_watches_the_person_and_expects_a_reward(agent):
    session, source = play(agent)
    source.hand_over()
    for _ in range(3):
        session.advance()
    seen = source.reward
    assert np.isfinite(seen)
    states = source._episode.agent_states.clone()
    assert source.reward == seen and torch.equal(source._episode.agent_states, states), "looking twice changes nothing"


def test_resets_and_rewinds_start_from_the_frame_that_is_shown(agent):
    session, source = play(agent)
    for _ in range(12):
        session.advance()
    session.rewind()
    assert session.dream.step == 2
    source.action(2)
    assert source._episode.frame_index == 1
    session.next_start()
    session.advance()
    assert session.dream.start == 1 and session.dream.step == 1


def test_unknown_tasks_are_refused_before_a_window_opens(agent):
    with pytest.raises(ValueError, match="does not know the task 'up'"):
        play(agent, task="up")


def test_tab_hands_over_and_the_window_shows_who_acts(agent):
    session, source = play(agent)
    open_display()
    window = PlayWindow((16, 16), session.dreams.space)
    game = Game(session, window, agent=source)
    game.tick()
    assert source.agent_acts and (pygame.surfarray.array3d(window.surface) == AMBER).all(-1).sum() > 100
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_TAB))
    game.tick()
    assert not source.agent_acts and session.dream.action.tolist() == [1.0, 2.0]
    pygame.quit()


def test_in_the_simulator_the_agent_acts_by_what_it_sees_there():
    pytest.importorskip("gym_pusht", reason="needs the extra pusht")
    from dreamer_hf.pusht.compare import RealPushT

    agent = tiny_agent(dynamics_changes=PUSHES)
    real = RealPushT(agent.world.config, seed=0, num_starts=2)
    dreams = Dreams(agent.world, real.starts)
    (dream,) = dreams.begin([0], [0])
    person = ScriptedActions(np.tile(np.array([1.0, 2.0], np.float32), (99, 1)))
    source = AgentActions(agent, dream, person)
    following = AgentInSimulator(real, source)
    session = PlaySession(dreams, source, side_by_side=following, dream=dream)
    for _ in range(3):
        session.advance()
    assert len(real._actions) == 3 and "reward in the simulator" in following.status()
    source.hand_over()
    session.advance()
    assert real._actions[-1].tolist() == session.dream.action.tolist() == [1.0, 2.0]
    first = [action.tolist() for action in real._actions]
    session.rewind()
    assert real._actions == [] and following.frame.shape == (16, 16, 3)
    session.next_start()
    source.hand_over()
    session.advance()
    assert len(real._actions) == 1 and len(first) == 4


def test_the_command_plays_an_agent_without_a_window(agent, run_here, tmp_path):
    agent.save_pretrained(tmp_path / "agent")
    save_start_frames(tmp_path / "agent", make_starts())
    options = ["--agent", tmp_path / "agent", "--headless", "--steps", 3, "--task", "right"]
    status, printed, errors = run_here(*options, model="pusht-tiny")
    assert status == 0, errors
    assert "3 frames" in printed and "The agent expects a reward" in printed


BAD = {
    "another world": (["--agent", "x", "--headless", "--steps", 1], "elsewhere", "brings its world"),
    "ONNX": (["--agent", "x", "--engine", "onnx"], "pusht-tiny", "agents run on PyTorch"),
    "an adapter": (["--agent", "x", "--adapter", "y"], "pusht-tiny", "leave out --adapter"),
    "no agent": (["--task", "1"], "pusht-tiny", "add --agent"),
    "no end": (["--agent", "x", "--headless"], "pusht-tiny", "never end"),
    "no such agent": (["--agent", "nowhere", "--headless", "--steps", 1], "pusht-tiny", "no such folder"),
}


@pytest.mark.parametrize(("options", "model", "reason"), BAD.values(), ids=BAD)
def test_options_that_do_not_fit_an_agent_are_one_sentence(options, model, reason, run_here):
    status, _, errors = run_here(*options, model=model)
    assert status == 2 and reason in errors and "Traceback" not in errors


def test_a_world_in_place_of_an_agent_gives_a_hint(run_here, world_folder):
    status, _, errors = run_here("--agent", world_folder, "--headless", "--steps", 1, model="pusht-tiny")
    assert status == 2 and "dreamer train agent" in errors
