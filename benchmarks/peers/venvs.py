"""A virtual environment per peer, made once, pinned, with the same torch and transformers as ours."""

import json
import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path

FOLDER = Path.home() / ".cache/lsf/bench-venvs"
"""Where they are kept between runs."""
PINS = {
    "TransformerLens": ("transformer-lens==4.3.0",),
    "nnsight": ("nnsight==0.8.1",),
    "tuned-lens": ("tuned-lens==0.2.0",),
    "TRL": ("trl==1.16.0",),
}
"""Peers that are packages; those of plain transformers run in our own environment."""
SAME = ("torch", "transformers", "safetensors", "numpy")
"""Packages whose version must be ours, so that only the tool differs."""


def interpreter(peer: str) -> Path:
    """Return the Python of a peer's environment, making the environment at the first call.

    Raises:
        CalledProcessError: pip could not install it.
    """
    if peer not in PINS:
        return Path(sys.executable)
    wanted = [*(f"{name}=={version(name)}" for name in SAME), *PINS[peer]]
    folder = FOLDER / peer
    python, stamp = folder / "bin/python", folder / "made.json"
    if not stamp.exists() or json.loads(stamp.read_text()) != wanted:
        print(f"making the environment of {peer} in {folder} ...", file=sys.stderr, flush=True)
        venv.create(folder, clear=True, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "-qq", *wanted], check=True, stdout=sys.stderr)
        stamp.write_text(json.dumps(wanted))
    return python
