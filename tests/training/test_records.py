"""Readings of the base model on record, and states of held-out rows: the same numbers with and without."""

import copy
import json
from dataclasses import replace

import pytest
import torch

from lsf.data.contents import Document, Segments
from lsf.data.encode import encode
from lsf.data.task import Example
from lsf.files import cache_folder
from lsf.methods.context import MethodContext
from lsf.methods.registry import METHODS
from lsf.models.loading import load_model
from lsf.plans.plan import Plan
from lsf.progress import do_nothing
from lsf.runs.spec import RunSpec
from lsf.training import caching
from lsf.training.caching import forget_records, forget_states, open_held_out
from lsf.training.evaluation import Asked, evaluate
from lsf.training.run import tune
from lsf.training.splits import knows_written, measure_base
from tests.models.test_families import ROWS


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch, loaded):
    monkeypatch.setenv("LSF_CACHE", str(tmp_path / "cache"))
    forget_records()
    forget_states(loaded)


def encoded(loaded, examples):
    return encode(loaded.tokenizer, examples, 64).rows


def read(loaded, task, blocks=(2,)):
    spec = RunSpec(loaded.info.name, "toy", Plan("tiny", 4, blocks), batch_size=4)
    return measure_base(loaded, spec, encoded(loaded, task.test), encoded(loaded, task.validation), do_nothing)


def told(reading):
    return reading.metrics, reading.validation, reading.samples, reading.text.rows


def files():
    return sorted((cache_folder() / "readings").glob("*.json"))


def test_a_base_reading_has_the_same_numbers_fresh_from_memory_and_from_disk(loaded, task, monkeypatch):
    fresh = told(read(loaded, task))
    assert len(files()) == 5  # text, its loss, test rows, answers, validation rows

    def never(*_args, **_kwargs):
        raise AssertionError("the base model was read again")

    for name in ("evaluate", "general_loss", "sample_general_text", "answers_of"):
        monkeypatch.setattr(f"lsf.training.splits.{name}", never)
    assert told(read(loaded, task)) == fresh
    forget_records()
    assert told(read(load_model(loaded.info.name, "float32", "cpu"), task)) == fresh
    with pytest.raises(AssertionError, match="read again"):
        read(loaded, replace(task, test=task.test[:-1]))


def test_a_base_reading_has_the_same_bits_whatever_states_it_leaves_for_the_run(loaded, task, monkeypatch, tmp_path):
    found = []
    for place, blocks in enumerate([(0,), (1,), (3,), (2, 3)]):
        monkeypatch.setenv("LSF_CACHE", str(tmp_path / str(place)))
        forget_records()
        found.append(told(read(loaded, task, blocks)))
    assert found[1:] == found[:1] * 3


def test_what_the_base_model_was_read_on_is_not_computed_again_for_the_tuned_one(loaded, task, spec):
    rows, model = encoded(loaded, task.test), METHODS["full"].prepare(loaded, spec.plan, MethodContext())
    read(loaded, task, spec.plan.blocks)
    prefix = open_held_out(loaded, model, spec, rows, "test", spec.batch_size)
    assert prefix is not None
    evaluate(model, rows, spec.batch_size, prefix=prefix)
    assert (prefix.found, prefix.computed) == (len(rows), 0)


def test_a_stop_while_the_base_model_writes_is_heeded_at_once_and_leaves_no_record(loaded, task):
    asked = list[None]()

    def check():
        asked.append(None)
        if len(asked) == 3:
            raise InterruptedError

    spec = RunSpec(loaded.info.name, "toy", Plan("tiny", 4, (2,)), batch_size=4)
    with pytest.raises(InterruptedError):
        measure_base(loaded, spec, encoded(loaded, task.test), encoded(loaded, task.validation), check)
    assert files() == []


def test_a_damaged_record_is_measured_anew(loaded, task):
    fresh, damages = told(read(loaded, task)), (b"", b"{", b"null", b'{"about": 1}')
    for damage in damages:
        forget_records()
        for file in files():
            file.write_bytes(damage)
        assert told(read(loaded, task)) == fresh, damage
        assert all(json.loads(file.read_text())["record"] for file in files()), damage


def test_a_record_whose_number_was_changed_is_measured_anew(loaded, task):
    fresh = told(read(loaded, task))
    forget_records()
    for file in files():
        known = json.loads(file.read_text())
        if isinstance(known["record"], float):
            file.write_text(json.dumps({**known, "record": known["record"] + 1}))
    assert told(read(loaded, task)) == fresh


def test_a_model_with_other_weights_has_a_record_of_its_own(loaded, task):
    first = told(read(loaded, task))
    other = load_model(loaded.info.name, "float32", "cpu")
    other.model.model.norm.weight.data.mul_(2)
    assert told(read(other, task))[0] != first[0]


def test_of_a_model_with_a_hook_of_somebodys_own_nothing_is_on_record(loaded, task):
    plain, known = told(read(loaded, task)), files()
    steered = load_model(loaded.info.name, "float32", "cpu")
    handle = steered.model.model.layers[1].register_forward_hook(lambda module, given, out: out * 1.5)
    assert told(read(steered, task)) != plain
    assert files() == known
    handle.remove()
    assert told(read(steered, task)) == plain


def test_records_are_bounded_and_a_folder_that_cannot_be_written_costs_nothing(loaded, task, monkeypatch, tmp_path):
    monkeypatch.setattr(caching, "KEPT_FILES", 2)
    fresh = told(read(loaded, task))
    assert len(files()) == 2
    (tmp_path / "file").touch()
    monkeypatch.setenv("LSF_CACHE", str(tmp_path / "file"))
    forget_records()
    assert told(read(loaded, task)) == fresh


@pytest.mark.parametrize("family", ROWS)
def test_held_out_rows_read_from_kept_states_have_the_same_bits_in_every_family(tiny, family, task, spec):
    base = load_model(str(tiny(family)), "float32", "cpu")
    last = replace(spec, plan=Plan("tiny", base.info.n_blocks, (base.info.n_blocks - 1,)))
    model, rows = METHODS["full"].prepare(base, last.plan, MethodContext()), encoded(base, task.test)
    prefix = open_held_out(base, model, last, rows, "test", 5)
    assert prefix is not None
    without = evaluate(model, rows, 5)
    assert evaluate(model, rows, 5, prefix=prefix) == without  # computes them
    assert evaluate(model, rows, 5, prefix=prefix) == without  # finds them
    assert (prefix.computed, prefix.served) == (len(rows), 2 * len(rows))


def test_a_run_has_the_same_bits_with_and_without_kept_states_of_held_out_rows(loaded, task, spec, folder):
    plain = replace(spec, cache="off")
    one, other = tune(loaded, task, plain, folder(plain)), tune(loaded, task, spec, folder(spec))
    assert other.cache is not None and other.cache["kind"] == "off"  # no training row is seen twice
    assert one.after == other.after
    assert one.samples == other.samples


def test_nothing_is_kept_of_held_out_rows_where_nothing_lies_below_or_it_is_off(loaded, task, spec):
    rows = encoded(loaded, task.test)
    for asked in (replace(spec, cache="off"), replace(spec, plan=Plan("tiny", 4, (0,)))):
        model = METHODS["full"].prepare(loaded, asked.plan, MethodContext())
        assert open_held_out(loaded, model, asked, rows, "test", 4) is None


def test_a_text_and_segments_of_the_same_tokens_have_records_of_their_own(loaded):
    words = "the cat sat on the mat . the dog sat ."
    text = Example("", words, content=Document(words))
    parts = Example("", words, content=Segments(((True, words),)))
    spec = RunSpec(loaded.info.name, "toy", Plan("tiny", 4, (2,)), batch_size=4)
    told = {}
    for example in (parts, text):
        rows = encoded(loaded, [example])
        told[type(example.content)] = measure_base(loaded, spec, rows, (), do_nothing).metrics
    assert encoded(loaded, [text])[0].ids == encoded(loaded, [parts])[0].ids
    assert told[Segments].loss == told[Document].loss
    assert told[Segments].byte_perplexity is None and told[Document].byte_perplexity is not None


def test_what_the_base_model_wrote_is_found_on_disk_but_not_for_another_end_of_text(loaded, task, monkeypatch):
    spec = RunSpec(loaded.info.name, "toy", Plan("tiny", 4, (2,)), answer_pattern="(red|blue)", generate_tokens=4)
    asked = Asked(encoded(loaded, task.test), ("red",) * len(task.test))
    other = replace(loaded, tokenizer=copy.deepcopy(loaded.tokenizer))
    other.tokenizer.eos_token = "red"
    first = measure_base(loaded, spec, asked.rows, (), do_nothing, asked)
    assert knows_written(loaded, spec, asked) and not knows_written(other, spec, asked)
    forget_records()
    monkeypatch.setattr("lsf.training.splits.write_answers", lambda *_: pytest.fail("it was written again"))
    assert told(measure_base(loaded, spec, asked.rows, (), do_nothing, asked)) == told(first)


def test_states_of_another_number_of_threads_or_of_other_targets_are_not_taken(loaded, task, spec):
    rows, model = encoded(loaded, task.test), METHODS["full"].prepare(loaded, spec.plan, MethodContext())
    read(loaded, task, spec.plan.blocks)

    def found(some):
        prefix = open_held_out(loaded, model, spec, some, "test", spec.batch_size)
        assert prefix is not None
        return prefix.found

    assert found(rows) == len(rows)
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        assert found(rows) == 0
    finally:
        torch.set_num_threads(before)
    read(loaded, task, spec.plan.blocks)
    assert found(tuple(replace(row, n_prompt=1) for row in rows)) == 0
