from dataclasses import replace

from lsf.methods.context import planned_names
from lsf.models.loading import load_model
from lsf.plans.plan import Plan, full_plan


def test_a_plan_names_the_tensors_of_its_blocks_and_modules(loaded):
    names = planned_names(loaded, Plan("tiny", 4, (2,), final_norm=True))
    assert set(names) == set(loaded.layout.block_parameters(2)) | {"model.norm.weight"}


def test_a_full_plan_is_every_parameter_position_embeddings_included(tiny):
    loaded = load_model(str(tiny("gpt2")), "float32", "cpu")
    assert "transformer.wpe.weight" in planned_names(loaded, full_plan("tiny", 4))
    assert set(planned_names(loaded, full_plan("tiny", 4))) == set(dict(loaded.model.named_parameters()))


def test_a_tied_head_is_the_embedding_and_counts_once(tiny):
    loaded = load_model(str(tiny("gpt2")), "float32", "cpu")
    assert loaded.info.tied_head
    plan = Plan("tiny", 4, (), head=True)
    assert planned_names(loaded, plan) == ("transformer.wte.weight",)
    assert planned_names(loaded, replace(plan, embedding=True)) == ("transformer.wte.weight",)
