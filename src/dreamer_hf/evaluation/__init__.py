"""How good a world is on held-out episodes, against the floors that any world must beat; see docs/evaluation.md.

`dreams` makes the dreams, `quality` and `pusht_errors` (by `pusht_state`) compare them with what really followed,
`measuring` does all of it, `statistics` says how sure the means are, `report`, `plots` and `films` tell.
"""

from .dreams import DREAM, REAL, Clips, check_data_fits, decode_latents, dream, encode_frames, held_out_clips
from .evaluate import EvaluationOptions, Measurements, measure_world
from .perceptual import load_perceptual
from .plots import save_plots
from .report import EVALUATION_NAME, evaluation_of, markdown_table, read_evaluation, write_evaluation
from .videos import save_videos

__all__ = [
    "DREAM",
    "EVALUATION_NAME",
    "REAL",
    "Clips",
    "EvaluationOptions",
    "Measurements",
    "check_data_fits",
    "decode_latents",
    "dream",
    "encode_frames",
    "evaluation_of",
    "held_out_clips",
    "load_perceptual",
    "markdown_table",
    "measure_world",
    "read_evaluation",
    "save_plots",
    "save_videos",
    "write_evaluation",
]
