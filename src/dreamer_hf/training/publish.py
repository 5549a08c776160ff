"""The final folder of a run, which holds the model with its code, a preview and a card, and its upload to the Hub."""

from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import HfApi
from torch import nn
from transformers import AutoModel

from ..data.files import first_line
from ..data.hub import HUB_ERRORS
from ..media import save_gif, save_image
from ..remote_code import export_code
from .arguments import TrainingArguments
from .finetune import has_adapter
from .model_card import NON_EMA, CardFacts, write_adapter_card, write_model_card
from .objective import Evaluation, Objective
from .trained_agent import agent_weights


@dataclass(frozen=True)
class FinishedRun:
    """A run that has finished.

    Attributes:
        objective: what was trained.
        arguments: options of the run.
        model: the model to keep, the averaged one if there is an average.
        weights: all weights of the last step, not averaged.
        evaluation: the last evaluation of `model`.
        training: a sentence on steps, rows and time.
    """

    objective: Objective
    arguments: TrainingArguments
    model: nn.Module
    weights: dict[str, torch.Tensor]
    evaluation: Evaluation
    training: str


def write_final_folder(folder: Path, run: FinishedRun) -> None:
    """Fill an empty folder with everything that `from_pretrained`, with or without this package, and readers need.

    With `ema_decay` the folder's weights are the averaged ones, which were evaluated; those of the last step are saved
    as the variant `non_ema`.

    Raises:
        OSError: the disk is full or not writable.
    """
    if has_adapter(run.model):  # in PEFT's format: code and config belong to the world
        run.objective.save(folder, run.model, run.weights)
        write_adapter_card(folder, _facts(folder, run), run.model)
        return
    is_averaged = run.arguments.optimizer.ema_decay > 0
    run.objective.save(folder, run.model, run.model.state_dict() if is_averaged else run.weights)
    if is_averaged:
        _add_unaveraged(folder, run.weights)
    export_code(folder)
    write_model_card(folder, _facts(folder, run))


def _facts(folder: Path, run: FinishedRun) -> CardFacts:
    """Write the preview and return the content of the card."""
    return CardFacts(
        repo_id=run.arguments.run.hub_model_id,
        train_data=run.objective.train_data,
        test_data=run.objective.test_data,
        metrics=run.evaluation.values,
        training=run.training,
        ema_decay=run.arguments.optimizer.ema_decay,
        preview=_save_preview(folder, run),
    )


def _add_unaveraged(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    model = AutoModel.from_pretrained(folder)
    # The folder of a world also holds the frozen tokenizer; only its dynamics model was trained.
    getattr(model, "dynamics", model).load_state_dict(agent_weights(weights))
    model.save_pretrained(folder, variant=NON_EMA)


def _save_preview(folder: Path, run: FinishedRun) -> str | None:
    """Write the video of the evaluation, or its first image if there is no video; return the name of the file."""
    evaluation = run.evaluation
    if evaluation.video:  # of a dynamics model or an agent
        config = run.objective.model.config
        save_gif(folder / "preview.gif", evaluation.video, getattr(config, "dynamics_config", config).fps)
        return "preview.gif"
    if evaluation.images:
        save_image(folder / "preview.png", next(iter(evaluation.images.values())))
        return "preview.png"
    return None


def open_repository(repo_id: str) -> None:
    """Create the repository if it does not exist, so that a run without write access fails before it starts.

    Raises:
        OSError: the Hub refuses or cannot be reached.
    """
    try:
        HfApi().create_repo(repo_id, exist_ok=True)
    except HUB_ERRORS as error:
        raise OSError(
            f"{repo_id} cannot be opened for --push_to_hub ({first_line(error)}): check --hub_model_id and "
            "`hf auth login`, or leave --push_to_hub out."
        ) from error


def upload(arguments: TrainingArguments, names: list[str]) -> str:
    """Upload some files of the output folder in one commit and return its address.

    Args:
        arguments: options of the run.
        names: names of the files.

    Raises:
        OSError: the Hub refuses or cannot be reached; the folder does not change.
    """
    try:
        commit = HfApi().upload_folder(
            repo_id=arguments.run.hub_model_id,
            folder_path=Path(arguments.run.output_dir),
            allow_patterns=names,
            commit_message="Upload model",
        )
    except HUB_ERRORS as error:
        raise OSError(
            f"{arguments.run.hub_model_id} cannot be written ({first_line(error)}): the model is in "
            f"{arguments.run.output_dir}, and the same command with --resume_from_checkpoint latest tries again."
        ) from error
    return commit.commit_url
