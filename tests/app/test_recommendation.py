"""What the recommendation says of itself where the study measured the very model and task."""

from lsf.app.choose import known_truth
from lsf.app.evidence import evidence_words
from lsf.criteria.result import AnalysisSettings
from lsf.data.lessons import load_lesson
from lsf.evidence.packed import packed_evidence, packed_record
from lsf.evidence.regret import regret
from lsf.lens.analyze import analyze
from lsf.models.loading import load_model
from lsf.progress import Silent


def test_what_the_study_measured_of_the_choice_is_told() -> None:
    known_settings = packed_evidence()
    settings = AnalysisSettings(criteria=("deviation",), limit=8)
    found = analyze(load_model("bundled"), load_lesson("facts"), settings, Silent())
    truth = next(one.setting.truth for one in known_settings if one.setting.name == "bundled-facts")
    told = known_truth(known_settings, found, (0,)) or ""
    assert f"block 0 lost {100 * (regret(truth, (0,)).relative or 0):.1f} % of the best plan's gain" in told
    assert "own sample the rule named block 7: the choice depends on the examples read." in told
    assert "named" not in (known_truth(known_settings, found, (7,)) or "named")
    assert known_truth(known_settings, found, (0, 3, 5)) is None
    assert known_truth(known_settings, found, (5, 6, 7)) is None  # the only measured plan of three: best of none
    assert known_truth([one for one in known_settings if one.setting.model != "bundled"], found, (0,)) is None


def test_the_record_tells_what_was_announced_from_what_was_known() -> None:
    record = packed_record()
    told = evidence_words(record)
    assert record.announced is not None
    known = record.n_sites - record.n_announced
    assert f"{known} of the pairs were known when the rule was made; on the {record.n_announced}" in told
    assert f"it lost **{100 * record.announced:.1f} %**" in told
    assert f"without the model **{100 * record.without_model:.1f} %**" in told
