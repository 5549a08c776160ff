"""The common model tests of transformers, for our models."""

import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, PreTrainedModel

from dreamer_hf import DreamerWorldModel
from tiny import rand, randn, tiny_dynamics, tiny_tokenizer, tiny_world


def tokenizer_inputs(rows=2):
    return {"pixel_values_videos": rand(rows, 4, 3, 16, 16)}


def dynamics_inputs(rows=2):
    generator = torch.Generator().manual_seed(0)
    return {
        "latents": randn(rows, 4, 3, 5),
        "signal_level_ids": torch.randint(16, (rows, 4), generator=generator),
        "step_size_ids": torch.randint(5, (rows, 4), generator=generator),
        "actions": randn(rows, 4, 2, seed=1),
        "action_mask": rand(rows, 4, seed=2) < 0.5,
    }


def world_inputs(rows=2):
    given = dynamics_inputs(rows)
    noise = given.pop("latents")
    return tokenizer_inputs(rows) | given | {"noise": noise}


CASES = {
    "tokenizer": (tiny_tokenizer, tokenizer_inputs),
    "dynamics": (tiny_dynamics, dynamics_inputs),
    "world": (tiny_world, world_inputs),
}
# Layers whose outputs are recorded: four each of the tokenizer's encoder and decoder, eight of the dynamics model.
LAYERS = {"tokenizer": 8, "dynamics": 8, "world": 8}


@pytest.fixture(params=CASES)
def case(request):
    make_model, make_inputs = CASES[request.param]
    return request.param, make_model(), make_inputs


def first_output(model, inputs):
    with torch.no_grad():
        return model(**inputs)[0]


def test_saved_and_loaded_model_is_the_same(case, tmp_path):
    _, model, make_inputs = case
    model.save_pretrained(tmp_path)
    for loaded in (type(model).from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert type(loaded) is type(model) and not loaded.training
        torch.testing.assert_close(
            first_output(loaded, make_inputs()), first_output(model, make_inputs()), atol=0, rtol=0
        )


@pytest.mark.parametrize("part", ["tokenizer", "dynamics"])
def test_a_world_is_not_taken_for_one_of_its_parts(part, tmp_path):
    world = tiny_world()
    world.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"DreamerWorldModel\.from_pretrained and take its \.{part}"):
        type(getattr(world, part)).from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a dreamer_world, not a dreamer_tokenizer"):
        DreamerWorldModel.from_tokenizer_dynamics_pretrained(tmp_path, tmp_path)


def test_a_tokenizer_and_a_dynamics_model_are_joined_into_a_world(tmp_path):
    world, frames, actions = tiny_world(), rand(2, 3, 3, 16, 16), randn(2, 5, 2)
    for part in ("tokenizer", "dynamics"):
        getattr(world, part).save_pretrained(tmp_path / part)
    joined = DreamerWorldModel.from_tokenizer_dynamics_pretrained(tmp_path / "tokenizer", tmp_path / "dynamics")
    assert not joined.training and joined.config.to_dict() == world.config.to_dict()
    assert torch.equal(first_output(joined, world_inputs()), first_output(world, world_inputs()))
    videos = [w.generate(frames, actions, generator=torch.Generator().manual_seed(0)) for w in (world, joined)]
    assert torch.equal(videos[0].pixel_values_videos, videos[1].pixel_values_videos)


def test_missing_weights_are_initialized_and_listed_on_request(case, tmp_path):
    _, model, make_inputs = case
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    dropped = [name for index, name in enumerate(sorted(weights)) if index % 3 == 0]
    save_file({k: v for k, v in weights.items() if k not in dropped}, tmp_path / "model.safetensors", {"format": "pt"})
    loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert set(info["missing_keys"]) == set(dropped)
    assert first_output(loaded, make_inputs()).isfinite().all()
    for name, tensor in loaded.state_dict().items():
        assert tensor.isfinite().all() and (tensor.abs() < 100).all(), name
        assert name in dropped or torch.equal(tensor, weights[name])


def test_new_weights_are_all_drawn(case):
    """A new model holds no uninitialized memory: two of one seed agree, and no value is large."""
    _, model, _ = case
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        states.append(dict(type(model)(model.config).named_parameters()))
    for name, parameter in states[0].items():
        assert torch.equal(parameter, states[1][name]), name
        assert parameter.abs().max() < 100, name


def test_buffers_survive_loading(tmp_path):
    stats = {"mean": [1.0, -2.0], "std": [3.0, 0.0]}
    images = {"image_mean": [0.9, 0.5, 0.2], "image_std": [0.1, 0.5, 0.3]}
    tiny_world(images, {"action_stats": stats}).save_pretrained(tmp_path)
    world = AutoModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert torch.allclose(
        world.tokenizer.image_mean.flatten(), torch.tensor([0.9, 0.5, 0.2]).to(world.tokenizer.image_mean)
    )
    assert torch.allclose(
        world.tokenizer.image_std.flatten(), torch.tensor([0.1, 0.5, 0.3]).to(world.tokenizer.image_std)
    )
    encoder = world.dynamics.action_encoder
    assert encoder.action_mean.tolist() == [1.0, -2.0]
    assert encoder.action_std.tolist() == [3.0, 1.0], "a component that never moves is not divided by zero"


def test_tuples_and_dictionaries_agree(case):
    _, model, make_inputs = case
    with torch.no_grad():
        dictionary = model(**make_inputs())
        plain = model(**make_inputs(), return_dict=False)
    assert isinstance(plain, tuple) and len(plain) == len(dictionary.to_tuple())
    for ours, theirs in zip(plain, dictionary.to_tuple()):
        assert torch.equal(ours, theirs)


def test_encode_and_decode_return_tuples_on_request():
    model = tiny_tokenizer()
    latents = model.encode(rand(1, 2, 3, 16, 16)).latents
    assert torch.equal(model.encode(rand(1, 2, 3, 16, 16), return_dict=False)[0], latents)
    model.config.return_dict = False
    assert torch.equal(model.decode(latents)[0], model.decode(latents, return_dict=True).pixel_values_videos)


def test_input_embeddings_are_the_first_projection(case):
    """Parameter-efficient training and FSDP2 look for them."""
    _, model, make_inputs = case
    seen = []
    model.get_input_embeddings().register_forward_hook(lambda *_: seen.append(True))
    first_output(model, make_inputs())
    assert seen


def test_rows_of_a_batch_do_not_see_each_other(case):
    _, model, make_inputs = case
    together = first_output(model, make_inputs())
    for row in range(2):
        alone = first_output(model, {name: value[row : row + 1] for name, value in make_inputs().items()})
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


def test_time_is_causal(case):
    """The last frame changes no frame before it."""
    _, model, make_inputs = case
    inputs = make_inputs()
    key = next(iter(inputs))
    changed = inputs | {key: torch.cat([inputs[key][:, :-1], 1 - inputs[key][:, -1:]], dim=1)}
    before, after = first_output(model, inputs), first_output(model, changed)
    assert torch.equal(before[:, :-1], after[:, :-1])
    assert not torch.allclose(before[:, -1], after[:, -1])


def test_eval_mode_is_deterministic(case):
    _, model, make_inputs = case
    assert torch.equal(first_output(model, make_inputs()), first_output(model, make_inputs()))


def test_attention_can_be_switched_and_agrees(case):
    _, model, make_inputs = case
    outputs = {}
    for implementation in ("sdpa", "eager", "sdpa"):
        model.set_attn_implementation(implementation)
        outputs[implementation] = first_output(model, make_inputs())
    torch.testing.assert_close(outputs["sdpa"], outputs["eager"], atol=1e-5, rtol=1e-4)


def test_attention_can_be_chosen_at_loading(case, tmp_path):
    _, model, make_inputs = case
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, attn_implementation="eager")
    parts = [part for part in loaded.modules() if isinstance(part, PreTrainedModel)]
    assert {part.config._attn_implementation for part in parts} == {"eager"}
    model.set_attn_implementation("eager")
    assert torch.equal(first_output(loaded, make_inputs()), first_output(model, make_inputs()))


@pytest.mark.parametrize("implementation", ["flex_attention", "flash_attention_2", "kernels-community/flash-attn"])
def test_other_attention_is_refused(case, implementation):
    _, model, _ = case
    with pytest.raises(ValueError, match="attn_implementation to be 'sdpa' or 'eager'"):
        model.set_attn_implementation(implementation)
    assert not model._supports_flash_attn and not model._supports_flex_attn
    assert model.config._attn_implementation == "sdpa"


def test_capped_logits_need_eager_attention():
    model = tiny_dynamics(attn_logit_softcapping=2.0)
    assert model.config._attn_implementation == "eager"
    with pytest.raises(ValueError, match="expected attn_implementation='eager'"):
        model.set_attn_implementation("sdpa")
    world = tiny_world({}, {"attn_logit_softcapping": 2.0})
    parts = world.tokenizer.config._attn_implementation, world.dynamics.config._attn_implementation
    assert parts == ("sdpa", "eager")


@pytest.mark.parametrize("name", LAYERS)
def test_hidden_states_and_attentions_on_request(name):
    make_model, make_inputs = CASES[name]
    model = make_model()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(**make_inputs(), output_hidden_states=True, output_attentions=True)
        quiet = model(**make_inputs())
    assert len(output.hidden_states) == LAYERS[name] + 1 and len(output.attentions) == LAYERS[name]
    assert quiet.hidden_states is None and quiet.attentions is None
    for weights in output.attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights.sum(-1)))


@pytest.mark.parametrize("name", ["tokenizer", "dynamics"])
def test_gradient_checkpointing_changes_no_gradient(name):
    make_model, make_inputs = CASES[name]
    gradients = []
    for checkpointing in (False, True):
        model = make_model().train()
        if checkpointing:
            model.activation_checkpointing_enable()
        torch.manual_seed(0)  # the tokenizer draws its mask
        model(**make_inputs())[0].square().mean().backward()
        gradients.append({key: p.grad for key, p in model.named_parameters()})
    for key, gradient in gradients[0].items():
        assert gradient is not None, key
        torch.testing.assert_close(gradient, gradients[1][key], atol=1e-6, rtol=1e-5)


def test_bfloat16(case, tmp_path):
    _, model, make_inputs = case
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    close, exact = first_output(loaded, make_inputs()).float(), first_output(model, make_inputs())
    assert (close - exact).square().mean().sqrt() < 0.1 * exact.std()


def in_one_graph(function):
    """Compile without the minutes of code generation; a graph break is an error all the same."""
    return torch.compile(function, fullgraph=True, backend="eager")


@pytest.mark.slow
def test_one_graph(case):
    _, model, make_inputs = case
    with torch.no_grad():
        compiled = in_one_graph(model.forward)(**make_inputs())[0]
    torch.testing.assert_close(compiled, first_output(model, make_inputs()), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_encoding_and_decoding_are_one_graph_each():
    model, frames = tiny_tokenizer(), rand(2, 4, 3, 16, 16)
    with torch.no_grad():
        latents = model.encode(frames).latents
        torch.testing.assert_close(in_one_graph(model.encode)(frames).latents, latents, atol=1e-5, rtol=1e-5)
        pixels = in_one_graph(model.decode)(latents).pixel_values_videos
        torch.testing.assert_close(pixels, model.decode(latents).pixel_values_videos, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tokenizer", "dynamics"])
def test_a_training_step_is_one_graph(name):
    make_model, make_inputs = CASES[name]
    gradients = []
    for wrap in (in_one_graph, lambda function: function):
        model = make_model().train()
        torch.manual_seed(0)  # the tokenizer draws its mask
        wrap(model.forward)(**make_inputs())[0].square().mean().backward()
        gradients.append({key: p.grad for key, p in model.named_parameters()})
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][key], atol=1e-6, rtol=1e-5)


def test_meta_device_needs_no_memory_and_computes_shapes(case):
    _, model, make_inputs = case
    with torch.device("meta"):
        hollow = type(model)(model.config).eval()
    assert all(tensor.is_meta for tensor in (*hollow.parameters(), *hollow.buffers()))
    inputs = {name: value.to("meta") for name, value in make_inputs().items()}
    assert first_output(hollow, inputs).shape == first_output(model, make_inputs()).shape


# Shares of a model's size that stay in memory; the rest is loaded from the disk, layer by layer, when it is used.
@pytest.mark.parametrize("share", [1.5, 0.5, 0.05])
def test_device_map_and_offloading_change_nothing(case, tmp_path, share):
    _, model, make_inputs = case
    model.save_pretrained(tmp_path / "model")
    room = int(share * sum(parameter.nbytes for parameter in model.parameters()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = type(model).from_pretrained(
            tmp_path / "model", device_map="auto", max_memory={"cpu": room}, offload_folder=tmp_path / "offloaded"
        )
    assert any(parameter.is_meta for parameter in loaded.parameters()) == (share < 1)
    assert torch.equal(first_output(loaded, make_inputs()), first_output(model, make_inputs()))


def test_an_offloaded_world_dreams(tmp_path):
    world, frames, actions = tiny_world(), rand(2, 4, 3, 16, 16), randn(2, 6, 2)
    world.save_pretrained(tmp_path / "model")
    loaded = type(world).from_pretrained(
        tmp_path / "model", device_map="auto", max_memory={"cpu": 2000}, offload_folder=tmp_path / "offloaded"
    )
    assert PreTrainedModel.device.fget(loaded).type == "meta", "our own property is not needed any more"
    assert loaded.device.type == "cpu"
    videos = [w.generate(frames, actions, generator=torch.Generator().manual_seed(0)) for w in (world, loaded)]
    assert torch.equal(videos[0].pixel_values_videos, videos[1].pixel_values_videos)


def test_a_large_model_is_saved_in_shards(case, tmp_path):
    _, model, make_inputs = case
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    loaded = type(model).from_pretrained(tmp_path)
    assert torch.equal(first_output(loaded, make_inputs()), first_output(model, make_inputs()))


def test_weights_are_written_as_safetensors_only(case, tmp_path):
    _, model, _ = case
    model.save_pretrained(tmp_path)
    expected = {"config.json", "model.safetensors"} | ({"generation_config.json"} if model.can_generate() else set())
    assert {path.name for path in tmp_path.iterdir()} == expected


def test_configs_survive_json(case, tmp_path):
    _, model, _ = case
    model.config.save_pretrained(tmp_path)
    assert type(model.config).from_pretrained(tmp_path).to_dict() == model.config.to_dict()


def test_masks_are_drawn_in_training_only():
    model = tiny_tokenizer()
    frames = rand(8, 4, 3, 16, 16)
    assert model(frames).patch_mask is None
    model.train()
    mask = model(frames).patch_mask
    assert mask.shape == (8, 4, 4) and 0.1 < mask.float().mean() < 0.9
    ratios = model.sample_patch_mask(500, 8).float().mean(-1)
    assert ratios.max() == 1.0 and ratios.min() == 0.0
    assert abs(ratios.mean() - 0.45) < 0.03
    assert not torch.equal(model.encode(frames).latents, model(frames).latents), "encode never masks"


def test_frame_by_frame_equals_the_whole_video():
    model, frames = tiny_tokenizer(num_encoder_layers=8, num_decoder_layers=8), rand(2, 17, 3, 16, 16)
    with torch.no_grad():
        latents = model.encode(frames).latents
        decoded = model.decode(latents).pixel_values_videos
        for chunks in ((1,) * 17, (2,) * 8 + (1,), (5, 1, 1, 7, 3), (17,)):
            encoder, decoder = model.new_encoder_cache(2), model.new_decoder_cache(2)
            pieces = [model.encode(piece, past_key_values=encoder).latents for piece in frames.split(chunks, dim=1)]
            decoded_pieces = [
                model.decode(piece, past_key_values=decoder).pixel_values_videos
                for piece in latents.split(chunks, dim=1)
            ]
            torch.testing.assert_close(torch.cat(pieces, dim=1), latents, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(torch.cat(decoded_pieces, dim=1), decoded, atol=1e-5, rtol=1e-5)
            assert encoder.get_seq_length() == decoder.get_seq_length() == 17


def test_a_pass_that_commits_nothing_leaves_the_past_unchanged():
    model, inputs = tiny_dynamics(), dynamics_inputs()
    inputs.pop("action_mask")
    first, rest = ({name: value[:, part] for name, value in inputs.items()} for part in (slice(0, 3), slice(3, 4)))
    with torch.no_grad():
        cache = model.new_cache(2)
        model(**first, past_key_values=cache)
        for num_frames in (1, 2, 3):  # one, two, and more than the ring holds in addition to a full window
            wide = {name: value[:, :1].expand(-1, num_frames, *value.shape[2:]) for name, value in first.items()}
            model(**wide, past_key_values=cache, num_commit_frames=0)
            assert cache.get_seq_length() == 3
        cached = model(**rest, past_key_values=cache).latents
        torch.testing.assert_close(cached, model(**inputs).latents[:, 3:], atol=1e-5, rtol=1e-5)
