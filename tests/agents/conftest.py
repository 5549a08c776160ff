"""At this size several threads only wait for each other."""

import torch

torch.set_num_threads(1)
