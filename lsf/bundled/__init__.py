"""The bundled model, the small world it was pretrained on, and six lessons to tune it with.

Everything here is made by the project: `world` and `corpus` generate the text, `tokenizer` and `pretrain` make the
folder `model/`, `lessons` turns changes of the world into tasks, `lesson_table` measures which depth is right for each.
Importing this package, or its lessons, loads no torch.
"""

from pathlib import Path

MODEL_FOLDER = Path(__file__).parent / "model"
"""A Hugging Face folder: config, safetensors, tokenizer, and `pretraining.json`, the log of how it was made."""
