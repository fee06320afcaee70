"""What a second thread is worth: seconds of a training step by threads, how they wait, and which thread works.

`python benchmarks/threads.py [--model /opt/smollm2] [--steps 6] [--rounds 2] [--policies PASSIVE,ACTIVE]` starts a
fresh process per setting, in turn, so that what else the machine does falls on all, and tells the fastest step.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

PLACES = {"bundled": (4, 7)}
"""Model -> a block in the middle and the last one; of others, a half and the last of thirty."""
ROWS, TOKENS = 16, 24
"""Of a batch."""


def main() -> None:
    """Print a line per setting and place as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--policies", default="PASSIVE")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(seconds_of(arguments.model, arguments.steps)))
        return
    found: dict[tuple[str, str, str], float] = {}
    threads = dict.fromkeys(("1", str(os.cpu_count() or 1)))
    settings = [*itertools.product(threads, arguments.policies.split(","))] * arguments.rounds
    for number, policy in settings:
        command = [sys.executable, __file__, "--child", "--model", arguments.model, "--steps", str(arguments.steps)]
        environment = {**os.environ, "OMP_NUM_THREADS": number, "OMP_WAIT_POLICY": policy}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        for what, seconds in json.loads(done.stdout.splitlines()[-1]).items():
            found[number, policy, what] = min(seconds, found.get((number, policy, what), seconds))
            print(f"{number} threads, {policy.lower()}, {what}: {found[number, policy, what]:.3f} s", flush=True)


def seconds_of(name: str, steps: int) -> dict[str, float]:
    """Return the seconds of the fastest step, of a middle and the last block, in the main thread and in another one."""
    import torch  # noqa: PLC0415 after the environment is set

    from lsf.methods.context import MethodContext  # noqa: PLC0415
    from lsf.methods.registry import METHODS  # noqa: PLC0415
    from lsf.models.loading import load_model  # noqa: PLC0415
    from lsf.plans.plan import Plan  # noqa: PLC0415

    loaded = load_model(name, "float32", "cpu")
    ids = torch.randint(loaded.info.vocab_size, (ROWS, TOKENS), generator=torch.Generator().manual_seed(0))
    found: dict[str, list[float]] = {}

    def work(words: str, block: int) -> None:
        model = METHODS["full"].prepare(loaded, Plan(name, loaded.info.n_blocks, (block,)), MethodContext())
        wanted = [value for value in model.parameters() if value.requires_grad]
        optimizer = torch.optim.AdamW(wanted, fused=True)
        for _ in range(steps + 1):
            begun = time.perf_counter()
            logits = model(input_ids=ids, use_cache=False, logits_to_keep=4).logits
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, -4:].flatten()).backward()
            optimizer.step()
            optimizer.zero_grad()
            found.setdefault(f"{words} block {block}", []).append(time.perf_counter() - begun)
        del found[f"{words} block {block}"][0]

    for block in PLACES.get(name, (loaded.info.n_blocks // 2, loaded.info.n_blocks - 1)):
        work("main thread,", block)
        worker = threading.Thread(target=work, args=("worker,", block))
        worker.start()
        worker.join()
    return {what: min(seconds) for what, seconds in found.items()}


if __name__ == "__main__":
    main()
