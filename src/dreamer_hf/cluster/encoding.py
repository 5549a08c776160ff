"""Encoding latents on a cluster: every shard is encoded by one worker, which keeps the tokenizer."""

import torch
from tqdm import tqdm

from ..data.output_folder import OutputFolder, output_folder
from ..training.encode_options import EncodeOptions
from ..training.finetune import TOKENIZER, load_model
from ..training.latents import claim_folder, encode_shard, finish_folder, missing_shards, open_frames
from .connection import connected
from .node_checks import check_nodes, folder_probe, nodes_with_cores
from .worker import Stage, Work
from .worker_pool import WorkerPool

NEEDS = ("torch", "transformers", "h5py", "hdf5plugin", "pyarrow", "xxhash")


def encode_on_cluster(options: EncodeOptions) -> str:
    """Do what `dreamer encode-latents` does on the cluster `options.ray`.

    Raises:
        OSError, ValueError: as `encode_shards`; or there is no such cluster, or one on which the work cannot be done.
    """
    folder = output_folder(options.output_dir)
    needs = NEEDS + folder.modules
    with connected(options.ray):
        check_nodes(nodes_with_cores(), needs)
        tokenizer = load_model(options.tokenizer, TOKENIZER).eval()
        data = open_frames(options.data_dir, tokenizer)
        fingerprint = tokenizer.fingerprint()
        folder.make()
        with folder.lock():
            claim_folder(folder, options.data_dir, fingerprint, options.resume)
            shards = missing_shards(data, folder)
            frames = sum(int(data.episode_lengths[data.episode_shards == shard].sum()) for shard in shards)
            arguments = options.tokenizer, fingerprint, options.data_dir, folder
            stage = Stage(prepare_encoder, arguments, needs, uses_gpu=True)
            with (
                folder_probe(folder) as probe,
                WorkerPool(stage, len(shards), probe) as pool,
                tqdm(total=frames, desc="encoding", unit="frame") as bar,
            ):

                def show(status) -> None:
                    bar.set_postfix_str(str(status), refresh=False)
                    bar.update(status.frames - bar.n)

                for _ in pool.run(shards, show):
                    pass
            finish_folder(data, folder, tokenizer, fingerprint)
    return f"wrote latents to {folder}"


def prepare_encoder(name: str, fingerprint: str, data_dir: str, folder: OutputFolder) -> Work:
    """Return the work of a unit (a shard): its latents, under its final name.

    Raises:
        ValueError: this node has another tokenizer of that name.
    """
    tokenizer = load_model(name, TOKENIZER).eval()
    if tokenizer.fingerprint() != fingerprint:
        raise ValueError(f"{name} is another tokenizer here than where the command runs: give a shared folder.")
    tokenizer = tokenizer.to("cuda" if torch.cuda.is_available() else "cpu")
    data = open_frames(data_dir, tokenizer)

    def work(shard: int):
        for frames in encode_shard(tokenizer, data, folder, shard):
            yield frames, 1

    return work


__all__ = ["encode_on_cluster", "prepare_encoder"]
