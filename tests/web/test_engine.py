"""The engine in JavaScript against Python: the same noise, the same actions, the same dreams."""

import numpy as np
import pytest
import torch

from dreamer_hf.action_space import ActionSpace
from dreamer_hf.loading import load_world
from dreamer_hf.onnx.manifest import actions_entry
from dreamer_hf.play.controls import make_control
from dreamer_hf.seeded_noise import MAX_SEED, SeededNoise, philox
from dreamer_hf.start_frames import load_start_frames
from static_server import StaticServer

pytestmark = pytest.mark.system
SHOWN_EVERY = 8  # frames, of those whose pixels are compared
TOLERANCE = 1e-2

CALL = """
const [module, name, values, done] = arguments;
import(new URL(module, location.href).href).then((module) => module[name]).then(%s)
  .then((result) => done({result}), (error) => done({error: `${error}`}));
"""
DREAM = """
const [start, seed, actions, every, rewound, done] = arguments;
async function dream() {
  const load = (name) => import(new URL(name, location.href).href);
  const [{ Site }, { Dream }] = await Promise.all(["site.js", "dream.js"].map(load));
  const site = await Site.open(new URL("../", location.href).href);
  const world = await site.loadWorld("wasm", 1);
  const dream = new Dream(world, start, BigInt(seed));
  await dream.begin();
  const latents = [], frames = [[...dream.pixels]], states = [dream.state && [...dream.state]];
  const step = async (action) => {
    await dream.step(action && Float32Array.from(action));
    latents.push([...dream.latents]);
    states.push(dream.state && [...dream.state]);
    if (dream.numSteps % every === 0) frames.push([...dream.pixels]);
  };
  for (const action of actions) await step(action);
  dream.rewind(rewound);
  for (const action of actions.slice(dream.numSteps)) await step(action);
  return { latents, frames, states };
}
dream().then(done, (error) => done({ error: `${error}` }));
"""


class Engine:
    """The modules of a page, called from Python."""

    def __init__(self, driver, url):
        self.driver = driver
        driver.set_script_timeout(300)
        driver.get(f"{url}/static/check.js")  # any document from there, so that modules can be imported

    def dream(self, start, seed, actions, rewound=0):
        """Return latents (F, N * d), frames (K, V * 3 * H * W), which are the start frame and every eighth frame, and
        states (1 + F, S), None of a world without one."""
        answer = self.driver.execute_async_script(DREAM, start, str(seed), actions, SHOWN_EVERY, rewound)
        assert "error" not in answer, answer
        states = None if answer["states"][0] is None else np.array(answer["states"], np.float32)
        return (*(np.array(answer[name], np.float32) for name in ("latents", "frames")), states)

    def call(self, module, name, expression, values):
        """Return the value of an expression of an export `f` of a module and of `values`."""
        answer = self.driver.execute_async_script(CALL % f"((f) => {expression})", module, name, values)
        assert "error" not in answer, answer
        return answer["result"]


@pytest.fixture
def open_engine(driver):
    """Return a function that opens the engine of a site; the servers stop after the test."""
    servers = []

    def open_site(site):
        servers.append(StaticServer(site).__enter__())
        return Engine(driver, servers[-1].url)

    yield open_site
    for server in servers:
        server.__exit__()


def random_actions(space, count, seed=0):
    """Return actions (F, A) within and outside the range, some of them missing."""
    rng = np.random.default_rng(seed)
    middle, half = (space.low + space.high) / 2, (space.high - space.low) / 2
    actions = (middle + 1.3 * half * rng.uniform(-1, 1, (count, space.size))).tolist()
    return [None if index % 11 == 5 else action for index, action in enumerate(actions)]


def dream_in_torch(folder, start, seed, actions):
    """Return what `Engine.dream` returns, from the models in PyTorch."""
    world, starts = load_world(folder, "cpu"), load_start_frames(folder)
    rollout = world.start_rollout(starts[start], generator=[SeededNoise(seed)])
    frames = [world.decode(world.encode(starts[start].pixel_values_videos).latents)[:, -1]]
    latents, states = [], []
    for index, action in enumerate(actions):
        output = rollout.step(None if action is None else torch.tensor([action]))
        latents.append(output.latents)
        states.append(output.state)
        if (index + 1) % SHOWN_EVERY == 0:
            frames.append(output.pixel_values)
    parts = (latents, frames) if states[0] is None else (latents, frames, states)
    return (torch.stack(tensors).flatten(1).detach().numpy() for tensors in parts)


def test_known_answers_and_noise(open_engine, tiny_site):
    engine = open_engine(tiny_site)
    rng = np.random.default_rng(0)
    counters, keys = rng.integers(0, 2**32, (50, 4)), rng.integers(0, 2**32, (50, 2))
    expected = philox(
        counters.T.astype(np.uint32), (keys[:, 1].astype(np.uint64) << 32) + keys[:, 0].astype(np.uint64)
    )
    words = engine.call(
        "noise.js", "philox", "values.map(([c, k]) => f(c, k))", [*zip(counters.tolist(), keys.tolist())]
    )
    assert words == expected.tolist()
    for seed in (0, 7, 2**53 + 1, MAX_SEED):
        source = SeededNoise(seed)
        drawn = engine.call(
            "noise.js",
            "SeededNoise",
            "{ const noise = new f(BigInt(values)); return [5, 128].map((count) => [...noise.normal(count)]); }",
            str(seed),
        )
        for values in drawn:
            np.testing.assert_allclose(values, source.normal((len(values),)), atol=1e-6)


def test_a_dream_of_the_shipped_world_is_the_dream_in_pytorch(open_engine, shipped_site):
    space = ActionSpace.from_config(load_world("pusht-tiny", "cpu").config.dynamics_config)
    actions = random_actions(space, 64)
    latents, frames, states = open_engine(shipped_site).dream(2, 7, actions)
    expected_latents, expected_frames = dream_in_torch("pusht-tiny", 2, 7, actions)
    assert latents.shape[0] == 64 and frames.shape == (9, 3 * 64 * 64) and states is None
    assert np.abs(latents - expected_latents).max() < TOLERANCE
    assert np.abs(frames - expected_frames).max() < TOLERANCE


def test_a_world_whose_decoder_remembers_dreams_the_same_and_rewinds(open_engine, tiny_site, tiny_folder):
    space = ActionSpace.from_config(load_world(tiny_folder, "cpu").config.dynamics_config)
    actions = random_actions(space, 64, seed=1)
    latents, frames, _ = open_engine(tiny_site).dream(1, MAX_SEED, actions, rewound=24)
    expected_latents, expected_frames = dream_in_torch(tiny_folder, 1, MAX_SEED, actions)
    assert np.abs(latents[:64] - expected_latents).max() < TOLERANCE
    assert np.abs(frames[:9] - expected_frames).max() < TOLERANCE
    np.testing.assert_array_equal(latents[64:], latents[40:64])
    np.testing.assert_array_equal(frames[9:], frames[6:9])
    assert np.abs(expected_latents - np.roll(expected_latents, 1, 0)).max() > 10 * TOLERANCE


@pytest.mark.parametrize("start", [0, 1], ids=["known state", "state of one frame only"])
def test_a_world_with_state_and_cameras_dreams_the_same_and_rewinds(open_engine, arm_site, arm_folder, start):
    space = ActionSpace.from_config(load_world(arm_folder, "cpu").config.dynamics_config)
    actions = random_actions(space, 32, seed=1)
    latents, frames, states = open_engine(arm_site).dream(start, 5, actions, rewound=8)
    expected_latents, expected_frames, expected_states = dream_in_torch(arm_folder, start, 5, actions)
    assert frames.shape == (6, 2 * 3 * 16 * 16) and states.shape == (41, 3)
    assert np.abs(latents[:32] - expected_latents).max() < TOLERANCE
    assert np.abs(frames[:5] - expected_frames).max() < TOLERANCE
    assert np.abs(states[1:33] - expected_states).max() < TOLERANCE
    first = load_start_frames(arm_folder).states[start, -1] if start == 0 else torch.tensor([1.0, -2.0, 30.0])
    np.testing.assert_allclose(states[0], first, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(states[33:], states[25:33])
    np.testing.assert_array_equal(latents[32:], latents[24:32])
    assert np.abs(np.diff(expected_states[:, :2], axis=0)).max() > 10 * TOLERANCE


def test_controls_act_as_in_python(open_engine, tiny_site):
    space = ActionSpace(
        names=("target", "step", "button"),
        low=np.array([0, -3, 0], np.float32),
        high=np.array([512, 5, 4], np.float32),
        relative=np.array([False, True, False]),
        discrete=np.array([False, False, True]),
    )
    entry = actions_entry(space, [0, 0, 5], offset=1)
    rng = np.random.default_rng(0)
    inputs = [(rng.uniform(-1, 1, 3).tolist(), index % 7 > 4) for index in range(40)]
    actions = open_engine(tiny_site).call(
        "control.js",
        "ActionSpace",
        """import(new URL("control.js", location.href).href).then(({ Controls }) => {
          const controls = new Controls(new f(values.entry), 20);
          let last = values.entry.rest;
          return values.inputs.map(([axes, pointer]) => (last = [...controls.action({ axes, pointer }, last)]));
        })""",
        {"entry": entry, "inputs": inputs},
    )
    stick, pointer = (make_control(space, 20, pointer=is_pointer) for is_pointer in (False, True))
    last, was_stick, expected = space.rest, True, []
    for axes, is_pointer in inputs:
        if not is_pointer and not was_stick:
            stick.resume_from(last)
        was_stick = not is_pointer
        last = (pointer if is_pointer else stick)(np.array(axes))
        expected.append(last)
    np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-5)
