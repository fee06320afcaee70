"""What a run proved about itself, how it was carried out, and what sets runs apart."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from lsf.compare.differences import differences
from lsf.jobs.result import Proof, RunResult
from lsf.jobs.runs import Run
from lsf.ui.panels import amount, size
from lsf.ui.panels import table as show_table
from lsf.ui.runs import label, labels

SHORT_HASH = 12
"""Digits of a hash that are shown; files have all of it."""
NAMED = 8
"""Tensors that did not move and are named at most, per run."""


def proof_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return what moved and what did not, checked on the tensors; runs that did not get that far are left out."""
    return pd.DataFrame(
        [
            {
                "run": label(run),
                "frozen tensors": proof.frozen_tensors,
                "unchanged": "yes" if proof.frozen_identical else "NO",
                "proved by": proof.level,
                "hash of the frozen": proof.frozen_hash[:SHORT_HASH] if proof.frozen_hash else None,
                "tuned tensors": proof.tuned_tensors,
                "moved": proof.tuned_moved,
                "parameters planned": proof.planned_params,
                "parameters tuned": proof.trainable_params,
                "as planned": "yes" if proof.planned_params == proof.trainable_params else "NO",
            }
            for run, proof in _proved(runs)
        ]
    )


def unmoved(runs: Sequence[Run]) -> list[str]:
    """Return a sentence for each run that has tuned tensors which did not move, with their names."""
    told = []
    for run, proof in _proved(runs):
        names = proof.tuned_unmoved
        if names:
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            told.append(f"{label(run)}: did not move: {', '.join(names[:NAMED])}{more}.")
    return told


def _proved(runs: Sequence[Run]) -> list[tuple[Run, Proof]]:
    return [(run, run.result.proof) for run in runs if run.result is not None and run.result.proof is not None]


def course_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return how each run was carried out: prefix cache, micro-batch, whether it was resumed; unknown is empty."""
    return pd.DataFrame([_course(run, run.result) for run in runs if run.result is not None])


def _course(run: Run, result: RunResult) -> dict[str, Any]:
    cache = result.cache or {}
    kept = cache.get("kind") not in (None, "off")
    return {
        "run": label(run),
        "prefix cache": cache.get("kind"),
        "blocks below it": cache.get("depth") if kept else None,
        "examples computed": cache.get("computed"),
        "examples served": cache.get("served"),
        "cache size": size(cache["bytes"]) if kept and "bytes" in cache else None,
        "why": cache.get("reason"),
        "micro-batch": result.micro_batch,
        "resumed at step": result.resumed_at,
        "tuned": None if result.trainable_params is None else amount(result.trainable_params),
    }


def differences_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return one row per setting in which the runs differ, and a column per run."""
    names = labels(runs)
    return pd.DataFrame(
        [{"setting": one.setting, **dict(zip(names, one.values, strict=True))} for one in differences(runs)]
    )


def show_proof(runs: Sequence[Run], key: str) -> None:
    """Show proof and course of runs.

    Args:
        runs: in any state.
        key: names the tables on this page, and their files.
    """
    proof = proof_table(runs)
    if len(proof):
        show_table(proof, f"{key}-proof")
    else:
        st.caption("No run got as far as its proof yet.")
    for sentence in unmoved(runs):
        st.warning(sentence, icon=":material/warning:")
    st.caption(
        "By identity: every frozen tensor lies where the base's does, was not written, and was not held by the "
        "optimizer. By hash (--verify): its bytes are hashed before and after. Every tuned tensor must have moved, and "
        "the optimizer must have held as many parameters as the plan names."
    )
    course = course_table(runs)
    if len(course):
        show_table(course, f"{key}-course")
        st.caption(
            "The blocks below the lowest tuned one never change, so what leaves them is computed once per example and "
            "then served. A micro-batch smaller than the batch means that gradients were added up to save memory."
        )


def show_differences(runs: Sequence[Run], key: str) -> None:
    """Show in which settings runs differ.

    Args:
        runs: those compared.
        key: names the table on this page, and its file.
    """
    table = differences_table(runs)
    if len(table):
        show_table(table, key)
    else:
        st.caption("Nothing: the runs were asked for with the same settings, on the same versions and device.")
