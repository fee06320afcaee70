"""What tells one base model from another: a hash of its weights, and one of its configuration."""

import hashlib
import json
from typing import Any
from weakref import WeakKeyDictionary

import torch

from lsf.measure.quantised import scales

_HASHES: WeakKeyDictionary[Any, tuple[object, str]] = WeakKeyDictionary()


def weights_hash(model: Any) -> str:
    """Return SHA-256 over names, dtypes, shapes and bytes of a loaded model's parameters.

    What belongs to weights packed in 4 or 8 bits counts too. Computed once per loaded model, and again where a
    parameter was replaced or written since.
    """
    stamp = [(value.data_ptr(), value._version) for value in model.parameters()]
    if model not in _HASHES or _HASHES[model][0] != stamp:
        digest = hashlib.sha256()
        for name, value in (*model.named_parameters(), *scales(model)):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().contiguous().cpu().flatten().view(torch.uint8).numpy().data)
        _HASHES[model] = stamp, digest.hexdigest()
    return _HASHES[model][1]


def config_hash(model: Any) -> str:
    """Return SHA-256 over a loaded model's configuration: with the same weights and another one it says other things.

    Which version of transformers wrote it is left out.
    """
    plain = json.loads(model.config.to_json_string())
    plain.pop("transformers_version", None)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
