"""Parts of a model that are not blocks: switches, and modules by their dotted name."""

import pytest
import torch

from lsf.cli.main import main
from lsf.errors import PlanError
from lsf.methods.context import MethodContext, planned_names
from lsf.methods.registry import METHODS
from lsf.plans.plan import Plan
from lsf.runs.spec import RunSpec
from lsf.runs.store import list_runs
from lsf.training.artefacts import find_weights, load_tuned, read_about, save_weights
from lsf.training.caching import prefix_depth
from lsf.training.rate_search import TOO_SHORT
from tests.methods.conftest import context_for, tuned_values
from tests.methods.test_contract import given


def test_a_module_is_reached_by_its_dotted_name_alone_and_beside_blocks(loaded):
    gate = loaded.layout.block_names[1] + ".mlp.gate_proj"
    assert planned_names(loaded, Plan("m", 4, (), modules=(gate,))) == (f"{gate}.weight",)
    both = planned_names(loaded, Plan("m", 4, (3,), final_norm=True, modules=(gate,)))
    assert {f"{gate}.weight", f"{loaded.layout.final_norm_name}.weight"} < set(both)
    assert Plan("m", 4, (3,), modules=(gate,)).label == f"block 3 + {gate}"


def test_only_the_named_module_wants_gradients(loaded):
    gate = loaded.layout.block_names[1] + ".mlp.gate_proj"
    model = METHODS["full"].prepare(loaded, Plan("m", 4, (), modules=(gate,)), MethodContext())
    assert [name for name, value in model.named_parameters() if value.requires_grad] == [f"{gate}.weight"]


def test_a_module_the_model_does_not_have_is_refused_with_names_it_has(loaded):
    with pytest.raises(PlanError, match=r"tunes the module 'connector', which .* names are such as"):
        planned_names(loaded, Plan("m", 4, (), modules=("connector",)))


def test_a_plan_of_modules_is_the_same_after_its_file_and_has_no_frozen_prefix():
    plan = Plan("m", 4, (3,), modules=("vision.connector",))
    assert Plan.from_json(plan.to_json(), "here") == plan
    assert prefix_depth(plan, tied_head=False) == 0
    assert prefix_depth(Plan("m", 4, (3,)), tied_head=False) == 3
    with pytest.raises(PlanError, match="tunes nothing"):
        Plan("m", 4, ())


def test_the_command_tunes_modules_alone_and_searches_the_rate_where_asked(tiny, tmp_path, capsys):
    data = tmp_path / "data.csv"
    lines = [
        f"the {one} sat on, {two}" for one in ("cat", "dog", "sun", "moon") for two in ("mat", "red", "two", "blue")
    ]
    data.write_text("\n".join(["prompt,completion", *lines]) + "\n")
    asked = [
        "tune",
        "--model",
        str(tiny("llama")),
        "--data",
        str(data),
        "--device",
        "cpu",
        "--runs",
        str(tmp_path / "r"),
    ]
    short = ["--steps", "2", "--batch-size", "4"]
    assert main([*asked, *short, "--blocks", "none", "--modules", "head,model.norm", "--search-lr"]) == 0
    (run,) = list_runs(tmp_path / "r")
    assert run.spec is not None and run.result is not None and run.result.proof is not None
    assert (run.spec.plan.blocks, run.spec.plan.head, run.spec.plan.modules) == ((), True, ("model.norm",))
    assert run.result.proof.holds
    assert (run.result.learning_rate, run.result.search) == (run.result.default_rate, ())
    assert run.result.rate_from == TOO_SHORT
    capsys.readouterr()
    assert main([*asked, "--all", "--modules", "head"]) == 2
    assert "write --blocks none to tune modules alone" in capsys.readouterr().err
    assert main([*asked, "--blocks", "1", "--search-lr", "--learning-rate", "0.1"]) == 2
    assert "--search-lr searches the learning rate" in capsys.readouterr().err
    assert main([*asked, *short, "--blocks", "1", "--epochs", "2"]) == 2
    assert "--steps and --epochs both say how long the run is" in capsys.readouterr().err
    assert main([*asked, *short, "--blocks", "1", "--report-to", "mlflow"]) == 2
    assert "--report-to mlflow needs the package mlflow, which is not installed" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["full", "did", "said"])
def test_what_was_tuned_beside_blocks_comes_back_from_its_file(name, gpt2, tmp_path):
    plan = Plan("tiny", 4, (3,), final_norm=True, modules=("transformer.h.1.mlp",))
    options = given(name, {})
    model = METHODS[name].prepare(gpt2, plan, context_for(name, **options))
    with torch.no_grad():
        for value in tuned_values(model).values():
            value.add_(0.05)
    save_weights(model, gpt2, RunSpec("tiny", "toy", plan, method=name, options=options), tmp_path)
    assert read_about(find_weights(tmp_path)).plan == plan
    ids = torch.tensor([[1, 5, 7]])
    with torch.no_grad():
        torch.testing.assert_close(load_tuned(tmp_path, gpt2)(ids).logits, model(ids).logits)
