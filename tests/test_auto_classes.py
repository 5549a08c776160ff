"""The auto classes know our models in any order of imports, and importing the package alone stays cheap."""

import subprocess
import sys

import pytest

IMPORTS = {
    "transformers first": "from transformers import AutoConfig, AutoModel, AutoVideoProcessor; import dreamer_hf",
    "ours first": "import dreamer_hf; from transformers import AutoConfig, AutoModel, AutoVideoProcessor",
    "one model first": (
        "import dreamer_hf.modeling_dreamer_tokenizer; "
        "from transformers import AutoConfig, AutoModel, AutoVideoProcessor"
    ),
    "their layers first": (
        "import dreamer_hf.modeling_layers; from transformers import AutoConfig, AutoModel, AutoVideoProcessor"
    ),
    "rollouts first": "import dreamer_hf.rollout; from transformers import AutoConfig, AutoModel, AutoVideoProcessor",
    "the video processor first": (
        "import dreamer_hf.video_processing_dreamer; "
        "from transformers import AutoConfig, AutoModel, AutoVideoProcessor"
    ),
    "one auto class first": (
        "from transformers import AutoConfig; import dreamer_hf.modeling_dreamer_dynamics; "
        "from transformers import AutoModel, AutoVideoProcessor"
    ),
}
CHECK = """
import sys
for name in ("tokenizer", "dynamics", "world", "agent"):
    config = AutoConfig.for_model(f"dreamer_{name}")
    assert AutoModel._model_mapping[type(config)].__name__ == f"Dreamer{name.title()}Model"
config.save_pretrained(sys.argv[1])
dreamer_hf.DreamerVideoProcessor().save_pretrained(sys.argv[1])
assert type(AutoVideoProcessor.from_pretrained(sys.argv[1])) is dreamer_hf.DreamerVideoProcessor
"""


@pytest.mark.slow
@pytest.mark.parametrize("imports", IMPORTS.values(), ids=IMPORTS)
def test_registered_in_any_order(imports, tmp_path):
    done = subprocess.run([sys.executable, "-c", imports + CHECK, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_imports_neither_torch_nor_transformers():
    code = "import sys, dreamer_hf; sys.exit(bool({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.slow
def test_auto_config_alone_imports_no_model():
    code = "import sys, dreamer_hf; from transformers import AutoConfig; AutoConfig.for_model('dreamer_world')"
    code += "; sys.exit('dreamer_hf.modeling_layers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_importing_the_package_changes_no_warning_filter():
    code = "import sys, warnings; before = list(warnings.filters); "
    code += "import dreamer_hf; sys.exit(warnings.filters != before)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_public_name_exists_and_is_documented():
    import dreamer_hf

    for name in dreamer_hf.__all__:
        assert getattr(dreamer_hf, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = dreamer_hf.Nothing
