"""Export of code next to the weights of a model: transformers then loads it without `dreamer_hf`, and LeRobot makes an
environment of a world."""

import json
import shutil
from pathlib import Path

from transformers import AutoConfig, AutoModel
from transformers.dynamic_module_utils import get_relative_import_files
from transformers.utils import CONFIG_NAME, VIDEO_PROCESSOR_NAME

from . import (
    modeling_dreamer_agent,
    modeling_dreamer_dynamics,
    modeling_dreamer_tokenizer,
    modeling_dreamer_world,
    video_processing_dreamer,
)
from .data.files import replacing

_MODELS = {
    "dreamer_tokenizer": (modeling_dreamer_tokenizer, "configuration_dreamer", "DreamerTokenizer"),
    "dreamer_dynamics": (modeling_dreamer_dynamics, "configuration_dreamer", "DreamerDynamics"),
    "dreamer_world": (modeling_dreamer_world, "configuration_dreamer", "DreamerWorld"),
    "dreamer_agent": (modeling_dreamer_agent, "configuration_dreamer_agent", "DreamerAgent"),
}


def export_code(folder: str | Path) -> list[str]:
    """Copy the code of a saved model into its folder and name it in the configs (`auto_map`).

    `AutoModel.from_pretrained(folder, trust_remote_code=True)` then works with transformers alone. If `dreamer_hf` is
    installed, its classes are used all the same. Nothing is registered: a later `save_pretrained` of the same classes
    writes no code. A world also gets an `env.py`, with which LeRobot makes an environment of it.

    Args:
        folder: folder of a saved model, with or without a video processor.

    Returns:
        The names of the code files.

    Raises:
        FileNotFoundError: if the folder holds no model of this package.
    """
    folder = Path(folder)
    model_type = _read(folder / CONFIG_NAME).get("model_type") if (folder / CONFIG_NAME).is_file() else None
    if model_type not in _MODELS:
        raise FileNotFoundError(f"{folder} holds no saved model of dreamer_hf: give the folder of save_pretrained.")
    module, configuration, name = _MODELS[model_type]
    references = {
        AutoConfig.__name__: f"{configuration}.{name}Config",
        AutoModel.__name__: f"{_file_name(module)}.{name}Model",
    }
    files = [module.__file__, *get_relative_import_files(module.__file__)]
    _name_code(folder / CONFIG_NAME, references)
    if (folder / VIDEO_PROCESSOR_NAME).is_file():
        files.append(video_processing_dreamer.__file__)
        reference = f"{_file_name(video_processing_dreamer)}.DreamerVideoProcessor"
        _name_code(folder / VIDEO_PROCESSOR_NAME, {"AutoVideoProcessor": reference})
    for file in files:
        shutil.copyfile(file, folder / Path(file).name)
    names = [Path(file).name for file in files]
    if model_type == "dreamer_world":
        names.append(modeling_dreamer_world.ENV_NAME)
        shutil.copyfile(Path(__file__).with_name("hub_env.py"), folder / names[-1])
    return sorted(names)


def _file_name(module) -> str:
    return module.__name__.rpartition(".")[2]


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def _name_code(path: Path, references: dict[str, str]) -> None:
    with replacing(path) as temporary:
        content = _read(path) | {"auto_map": references}
        temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


__all__ = ["export_code"]
