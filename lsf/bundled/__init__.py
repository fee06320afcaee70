"""The bundled model, pretrained by `lsf.bundled.pretrain` on the small world of `lsf.data.world` and `lsf.data.corpus`.

Everything is made by the project; importing this package loads no torch.
"""

from pathlib import Path

MODEL_FOLDER = Path(__file__).parent / "model"
"""A Hugging Face folder: config, safetensors, tokenizer, and `pretraining.json`, the log of how it was made."""
