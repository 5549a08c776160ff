"""The agent sees the world, the world does not see the agent, and both are saved in one folder."""

import pytest
import torch
from transformers import AutoConfig, AutoModel

from dreamer_hf import DreamerAgentModel, DreamerDynamicsModel, DreamerTokenizerModel, DreamerWorldModel
from dreamer_hf.start_frames import load_start_frames
from tiny import CAMERAS, STATE, make_starts, rand, randn, save_world, tiny_agent, tiny_states, tiny_world

WORLDS = {
    "plain": {},
    "state": STATE,
    "cameras": CAMERAS,
    "velocities": {"prediction": "v", "step_size_conditioning": False},
    "several tokens": {"num_action_tokens": 2, "num_key_value_heads": 2, "qk_norm": True},
}


def inputs(agent, frames=6, seed=0):
    """Noisy latents at random levels, actions and perhaps states, as keyword arguments of both models."""
    config = agent.world.dynamics.config
    shape = (2, frames)
    given = {
        "latents": randn(*shape, config.num_latent_tokens, config.latent_dim, seed=seed),
        "signal_level_ids": (rand(*shape, seed=seed + 1) * 16).long(),
        "step_size_ids": torch.zeros(shape, dtype=torch.int64),
        "actions": 20 * randn(*shape, 2, seed=seed + 2),
        "action_mask": rand(*shape, seed=seed + 3) < 0.7,
    }
    if config.state_dim:
        states = agent.world.dynamics.normalize_states(tiny_states(*shape))
        given |= {"states": states, "state_mask": rand(*shape, seed=4) < 0.5}
    return given


@pytest.mark.parametrize("num_copied_frames", [None, 3])
@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_the_world_predicts_the_same_with_an_agent(world, num_copied_frames):
    agent = tiny_agent(dynamics_changes=world, num_agent_tokens=2)
    given = inputs(agent) | {"num_copied_frames": num_copied_frames}
    with torch.no_grad():
        alone, watched = agent.world.dynamics(**given), agent(**given)
    torch.testing.assert_close(watched.latents, alone.latents, atol=1e-5, rtol=1e-5)
    if world is STATE:
        torch.testing.assert_close(watched.states, alone.states, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_copied_frames", [None, 3])
def test_nothing_of_the_world_depends_on_the_agent_tokens(num_copied_frames):
    agent = tiny_agent(dynamics_changes=STATE)
    tokens = randn(2, 6, 1, 32).requires_grad_()
    output = agent.world.dynamics(**inputs(agent), num_copied_frames=num_copied_frames, agent_tokens=tokens)
    weighted = (output.latents * randn(*output.latents.shape)).sum() + (output.states * tiny_states(2, 6)).sum()
    (gradient,) = torch.autograd.grad(weighted, tokens, retain_graph=True)
    assert not gradient.any()
    (seen,) = torch.autograd.grad(output.agent_states[:, -1].sum(), tokens)
    assert seen.any()


def test_the_agent_sees_its_frame_its_action_and_the_past_but_no_later_frame():
    agent = tiny_agent()
    given = inputs(agent) | {"action_mask": None}
    given["latents"].requires_grad_()
    given["actions"].requires_grad_()
    known = agent(**given).agent_states[:, 3].sum()
    for gradient in torch.autograd.grad(known, (given["latents"], given["actions"])):
        of_frame = gradient.flatten(2).abs().sum((0, 2))
        assert of_frame[3] > 0 and of_frame[2] > 0 and not of_frame[4:].any()


def test_the_eye_sees_the_predicted_frame_and_the_one_before_and_does_not_change_them():
    agent = tiny_agent(dynamics_changes=STATE)
    given = inputs(agent) | {"states": tiny_states(2, 6)}
    output = agent(**given)
    frames = torch.cat([output.latents.flatten(2), output.states], dim=-1)
    seen = agent.eye(torch.cat([frames, frames[:, [0, 0, 1, 2, 3, 4]]], dim=-1))
    assert torch.equal(output.agent_states[..., 32:], seen)
    seen.sum().backward()
    assert agent.world.dynamics.latent_head.weight.grad is not None, "the predictions have gradients to stop"
    agent.zero_grad()
    agent(**given).agent_states[..., 32:].sum().backward()
    assert agent.world.dynamics.latent_head.weight.grad is None and agent.eye.value.weight.grad.any()


def test_the_eye_finds_a_thing_at_any_place():
    """What the eye has learned of a token at one place, it knows at every other place."""
    eye = tiny_agent().eye
    with torch.no_grad():
        eye.places.zero_()
        tokens = randn(4, 2, 3, 5, seed=3)
        torch.testing.assert_close(eye(tokens[:, :, [2, 0, 1]].flatten(1)), eye(tokens.flatten(1)))


def test_heads_read_the_context_and_not_its_copies():
    agent = tiny_agent(predicts_continue=True)
    given = inputs(agent)
    copied, plain = agent(**given, num_copied_frames=3), agent(**{name: part[:, :3] for name, part in given.items()})
    assert copied.latents.shape[1] == 6
    names = ("agent_states", "policy_logits", "reward_logits", "value_logits", "continue_logits")
    shapes = [(2, 3, 160), (2, 3, 3, 10), (2, 3, 3, 255), (2, 3, 255), (2, 3)]
    for name, shape in zip(names, shapes, strict=True):
        assert getattr(copied, name).shape == shape
        torch.testing.assert_close(getattr(copied, name), getattr(plain, name), atol=1e-5, rtol=1e-5)


def test_tasks_by_number_name_row_frame_and_vector():
    agent, given = tiny_agent(num_tasks=3, task_names=["left", "right", "stay"]), inputs(tiny_agent())
    first = agent(**given, tasks=1).agent_states
    for tasks in ("right", torch.tensor([1, 1]), torch.ones(2, 6, dtype=torch.int64)):
        assert torch.equal(agent(**given, tasks=tasks).agent_states, first)
    changing = agent(**given, tasks=torch.tensor([[1, 1, 1, 0, 0, 0]] * 2)).agent_states
    assert torch.allclose(changing[:, :3], first[:, :3]) and not torch.allclose(changing[:, 3:], first[:, 3:])
    vectors = tiny_agent(task_dim=2)
    up, right = (vectors(**given, tasks=task).agent_states for task in ([0.0, 1.0], [1.0, 0.0]))
    assert not torch.equal(up, right)


BAD_TASKS = {
    "none of several": ({"num_tasks": 3}, None, "knows 3 tasks"),
    "an unknown name": ({"num_tasks": 2, "task_names": ["a", "b"]}, "c", "'c'.*a, b"),
    "too large a number": ({"num_tasks": 3}, 3, "from 0 to 2"),
    "another number of rows": ({"num_tasks": 3}, torch.tensor([0, 1, 2]), "shape"),
    "no vector": ({"task_dim": 2}, None, "vectors of 2"),
    "another width": ({"task_dim": 2}, [1.0], r"\(2,\)"),
}


@pytest.mark.parametrize(("fields", "tasks", "reason"), BAD_TASKS.values(), ids=BAD_TASKS)
def test_tasks_that_the_agent_does_not_know_are_refused(fields, tasks, reason):
    agent = tiny_agent(**fields)
    with pytest.raises(ValueError, match=reason):
        agent(**inputs(agent), tasks=tasks)


def test_new_heads_know_nothing_and_the_prior_is_the_policy():
    agent = DreamerAgentModel.for_world(tiny_agent().world, num_action_bins=5)
    output = agent(**inputs(agent))
    assert not output.policy_logits.any() and not agent.values_of(output.agent_states).any()
    assert (agent.continues_of(output.agent_states) == 1).all()
    trained = tiny_agent()
    trained.keep_policy_as_prior()
    known = randn(4, 160)
    assert torch.equal(trained.policy_head(known), trained.prior_head(known))


def test_losses_of_the_heads_reach_agent_tokens_and_world():
    agent = tiny_agent()
    output = agent(**inputs(agent))
    (output.policy_logits.sum() + output.reward_logits.square().sum()).backward()
    assert agent.agent_tokens.base.grad.any()
    assert agent.world.dynamics.transformer.layers[0].mlp.down_proj.weight.grad.any()
    assert agent.value_head.outputs[0].weight.grad is None


def test_a_folder_holds_the_whole_agent(tmp_path):
    save_world(tmp_path / "world", tiny_agent().world)
    agent = DreamerAgentModel.from_world_pretrained(tmp_path / "world", {"num_tasks": 2, "num_action_bins": 5})
    agent.generation_config.num_inference_steps = 2
    agent.save_pretrained(tmp_path / "agent")
    assert torch.equal(load_start_frames(tmp_path / "agent").actions, make_starts().actions)
    loaded = AutoModel.from_pretrained(tmp_path / "agent")
    assert type(loaded) is DreamerAgentModel and not loaded.training
    assert AutoConfig.from_pretrained(tmp_path / "agent").num_tasks == 2
    for name, tensor in agent.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    given = inputs(agent)
    assert torch.equal(loaded(**given, tasks=1).agent_states, agent(**given, tasks=1).agent_states)
    assert loaded.world.dynamics.generation_config.num_inference_steps == 2
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "start_frames.safetensors").is_file()


def test_an_agent_is_loaded_in_the_precision_that_is_asked_for(tmp_path):
    tiny_agent().save_pretrained(tmp_path)
    agent = DreamerAgentModel.from_pretrained(tmp_path, dtype="bfloat16")
    given = inputs(agent)
    output = agent(**given | {"latents": given["latents"].bfloat16()})
    assert output.agent_states.dtype == torch.bfloat16 and output.policy_logits.dtype == torch.float32
    assert agent.actions.decode(agent.actions.encode(torch.tensor([[36.0, -30.0]]))).tolist() == [[36.0, -30.0]]


def test_folders_of_other_kinds_give_a_hint(tmp_path):
    tiny_agent().save_pretrained(tmp_path / "agent")
    tiny_world().save_pretrained(tmp_path / "world")
    hints = {DreamerWorldModel: r"\.world\.", DreamerDynamicsModel: r"\.world\.dynamics\."}
    for model, hint in (hints | {DreamerTokenizerModel: r"\.world\.tokenizer\."}).items():
        with pytest.raises(ValueError, match=rf"DreamerAgentModel.from_pretrained and take its {hint}"):
            model.from_pretrained(tmp_path / "agent")
    with pytest.raises(ValueError, match="from_world_pretrained"):
        DreamerAgentModel.from_pretrained(tmp_path / "world")


def test_agent_tokens_of_another_shape_are_refused():
    agent = tiny_agent()
    with pytest.raises(ValueError, match="agent_tokens of shape"):
        agent.world.dynamics(**inputs(agent), agent_tokens=randn(2, 5, 1, 32))
