"""The options of `dreamer encode-latents`. Imports nothing that takes time."""

from dataclasses import dataclass

from ..options import option, ray_option


@dataclass(kw_only=True)
class EncodeOptions:
    """What to encode, and where the latents go."""

    tokenizer: str = option(help="Tokenizer or world: a folder or a Hub repository.")
    data_dir: str = option(help="Shard folder of frames.")
    output_dir: str = option(
        help="Write the latents to this new or empty folder, or to an address such as s3://bucket/data."
    )
    resume: bool = option(False, help="Continue an interrupted run; finished shards stay.")
    ray: str | None = ray_option()


__all__ = ["EncodeOptions"]
