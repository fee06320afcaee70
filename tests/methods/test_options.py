"""Options: written once, checked once, the same from the command line, a saved spec and Python; and the documents."""

from dataclasses import fields

import pytest

from lsf.cli.arguments import describe_setting
from lsf.cli.main import main
from lsf.errors import BadInputError, UnknownNameError
from lsf.methods.catalogue import CATALOGUE, PROJECTIONS, describe, options_of, read_pairs
from lsf.methods.intrinsic import KINDS
from lsf.methods.registry import METHODS
from lsf.plans.plan import Plan
from lsf.runs.spec import METHODS_OWN, RunSpec

PLAN = Plan("tiny", 4, (2,))


def spec_of(method, **changes):
    return RunSpec("tiny", "toy", PLAN, method=method, **changes)


def test_a_spec_has_the_methods_own_rate_unless_one_is_given():
    assert {spec_of(name).learning_rate for name in METHODS} == {METHODS_OWN}
    assert spec_of("lora").given_rate is None and not spec_of("lora").searches_rate
    assert spec_of("lora", learning_rate=0.5).learning_rate == 0.5
    assert spec_of("lora", learning_rate=None).learning_rate is None


def test_a_spec_with_options_comes_back_from_its_file_whole(tmp_path):
    spec = spec_of("adapter", options={"kind": "pfeiffer", "size": 4}, learning_rate=None)
    spec.save(tmp_path / "spec.json")
    assert RunSpec.load(tmp_path / "spec.json") == spec
    assert spec.how == describe("adapter", spec.options) == "adapter (kind=pfeiffer, size=4)"
    assert spec_of("full").how == "full"


@pytest.mark.parametrize(
    ("method", "options", "sentence"),
    [
        ("lora", {"rank": 3}, r"The method lora has no option 'rank'; known are: r, alpha, maps\."),
        ("full", {"r": 3}, r"The method full has no option 'r'; it has none\."),
        ("lora", {"r": "many"}, r"The method lora: r is 'many'; a whole number was expected\."),
        ("lora", {"r": 1.5}, r"The method lora: r is 1\.5; a whole number was expected\."),
        ("lora", {"r": True}, r"The method lora: r is True; a whole number was expected\."),
        ("adapter", {"kind": "tall"}, r"The method adapter: kind is 'tall'; accepted are: houlsby, pfeiffer\."),
        ("hiwi", {"r": 0}, r"The method hiwi: r is 0; it must lie between 1 and"),
    ],
)
def test_an_option_that_cannot_be_is_answered_with_what_could(method, options, sentence):
    with pytest.raises(BadInputError, match=sentence):
        spec_of(method, options=options)


def test_an_unknown_method_is_answered_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="Unknown method 'prayer'; known are: full, lora, bitfit"):
        spec_of("prayer")


def test_options_of_the_command_line_are_read_as_their_fields_say():
    record = CATALOGUE["adapter"].options
    assert read_pairs("adapter", record, ["kind=pfeiffer", "size=4"]) == {"kind": "pfeiffer", "size": 4}
    assert read_pairs("fish", CATALOGUE["fish"].options, ["fraction=1e-2"]) == {"fraction": 0.01}
    with pytest.raises(BadInputError, match="Cannot read the option 'size'; write it as name=value"):
        read_pairs("adapter", record, ["size"])
    with pytest.raises(BadInputError, match="size is 'big'; a whole number was expected"):
        read_pairs("adapter", record, ["size=big"])
    with pytest.raises(BadInputError, match="has no option 'depth'; known are: kind, size"):
        read_pairs("adapter", record, ["depth=2"])


def test_the_help_of_tune_names_every_option_of_every_method(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "10000")  # no line is broken
    with pytest.raises(SystemExit):
        main(["tune", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for name, info in CATALOGUE.items():
        told = ", ".join(describe_setting(item) for item in fields(info.options))
        assert not told or f"{name}: {told}" in shown


def test_every_option_has_a_meaning_and_its_default_is_accepted():
    for name, info in CATALOGUE.items():
        assert options_of(name, {}) == info.options()
        assert all(item.metadata["meaning"] for item in fields(info.options))
    assert tuple(KINDS) == PROJECTIONS
