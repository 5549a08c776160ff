"""Dreams inside LeRobot: as an environment, a robot and a teleoperator of its commands. Needs LeRobot 0.6 or later.

Importing this package registers everything, which `--env.discover_packages_path=dreamer_hf.lerobot` does before a
command reads its options, as does the distribution `lerobot_env_dreamer` where it is installed.

| option | what it is |
| --- | --- |
| `--env.type=dreamer` | dreams to evaluate policies in (`config_dreamer_env`, `dream_env`) |
| `--robot.type=dreamer` | a dream to teleoperate, record and replay in (`config_dreamer_robot`, `dreamer_robot`) |
| `--teleop.type=dreamer_scripted` | actions from a file, or a random walk (`config_dreamer_scripted`) |
"""

import importlib
import pkgutil

from .versions import check_lerobot

check_lerobot()
for _module in pkgutil.iter_modules(__path__):
    if _module.name.startswith("config"):
        importlib.import_module(f"{__name__}.{_module.name}")
