"""Worlds as Gymnasium environments. Importing this module registers them; torch is imported when one is made.

- `dreamer_hf/DreamerWorld-v0`: a world in this process, single (`gymnasium.make`) or batched (`gymnasium.make_vec`).
- `dreamer_hf/RemoteWorld-v0`: a world served by another machine; needs no torch on this machine.
"""

try:
    import gymnasium
except ImportError as error:
    raise ImportError("environments need gymnasium: pip install 'dreamer_hf[gym]'.") from error

gymnasium.register(
    "dreamer_hf/DreamerWorld-v0",
    entry_point="dreamer_hf.envs.world:DreamerWorldEnv",
    vector_entry_point="dreamer_hf.envs.vector:DreamerWorldVectorEnv",
)
gymnasium.register("dreamer_hf/RemoteWorld-v0", entry_point="dreamer_hf.envs.remote:RemoteWorldEnv")
