"""`demo`: what is bundled, and how the bundled model is built again."""

import argparse
import os
import sys

from lsf.cli.arguments import check_folder, check_seed, place, whole
from lsf.data.lessons import LESSONS
from lsf.environment import spare_imports


def demo_options(parser: argparse.ArgumentParser) -> None:
    """Add the actions of `demo`."""
    parser.set_defaults(command=demo_command)
    actions = parser.add_subparsers(title="actions", metavar="pretrain")
    pretrain = actions.add_parser("pretrain", help="build the bundled model again (up to 30 minutes on 2 cores)")
    pretrain.add_argument("--out", type=place, required=True, metavar="DIR", help="folder to write the model to")
    seed = "seed of the first weights and the order of statements [default: 0]"
    pretrain.add_argument("--seed", type=whole, default=0, help=seed)
    pretrain.add_argument(
        "--checkpoints", type=place, metavar="DIR", help="folder for seven checkpoints from along the way"
    )
    pretrain.set_defaults(command=pretrain_command)


def demo_command(_arguments: argparse.Namespace) -> int:
    """Say what the bundled model and its lessons are."""
    print("--model bundled: a Llama of 8 blocks, pretrained here on a small generated world.\n")
    for lesson in LESSONS.values():
        print(f"--data lesson:{lesson.name:<8} {lesson.title}\n{'':>22}{lesson.teaches}")
    return 0


def pretrain_command(arguments: argparse.Namespace) -> int:
    """Build the bundled model again."""
    for folder in filter(None, (arguments.out, arguments.checkpoints)):
        check_folder(folder)
    check_seed(arguments.seed)
    import torch

    from lsf.bundled.pretrain import pretrain

    spare_imports()
    torch.set_num_threads(os.cpu_count() or 1)  # nothing else wants the machine for so long
    pretrain(arguments.out, seed=arguments.seed, progress=_say, checkpoints=arguments.checkpoints)
    print(f"written to {arguments.out}")
    return 0


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
