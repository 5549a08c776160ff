"""Makes the world in this repository an environment of LeRobot.

    from lerobot.envs.factory import make_env
    envs = make_env("me/my-world", n_envs=4, trust_remote_code=True)

This file goes to the Hub with a world, as `env.py`. It needs `pip install 'dreamer_hf[lerobot]'`.
"""

from pathlib import Path


def make_env(n_envs: int = 1, use_async_envs: bool = False, cfg=None, **options) -> dict:
    """Return `{"dreamer": {0: env}}`, an environment of `n_envs` dreams in one engine.

    Args:
        n_envs: number of dreams.
        use_async_envs: has no effect: the dreams are one batch.
        cfg: LeRobot's config of the environment; of its fields, those of the options of a dream are used.
        options: fields of `dreamer_hf.lerobot.config_dreamer_env.DreamerEnvConfig`, such as `success` and
            `episode_length`.
    """
    from dataclasses import fields

    from dreamer_hf.lerobot.config_dreamer_env import DreamerEnvConfig

    ours = {each.name for each in fields(DreamerEnvConfig)} - {"world", "features", "features_map", "fps"}
    given = {name: getattr(cfg, name) for name in ours if getattr(cfg, name, None) is not None}
    return DreamerEnvConfig(world=_world(Path(__file__)), **given | options).create_envs(n_envs, use_async_envs)


def _world(file: Path) -> str:
    """Return the folder of the world that this file lies in; of one in the Hub's cache, all files are downloaded."""
    revision, snapshots = file.parent, file.parent.parent
    if snapshots.name != "snapshots":
        return str(file.parent)
    from huggingface_hub import snapshot_download

    repository = snapshots.parent
    repo_id = repository.name.removeprefix("models--").replace("--", "/", 1)
    return snapshot_download(repo_id, revision=revision.name, cache_dir=repository.parent)
