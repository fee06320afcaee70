"""A mend of Streamlit 1.67: what looks again by itself is not drawn into another page.

While `st.switch_page` is under way the browser still asks for fragments of the page that it shows. Streamlit runs them
behind the new page, names the old one, and the browser empties the page; the next fragment finds no place, and all goes
white. Remove this where `a_page_left_while_it_looks_again_by_itself_is_left`, in tests/browser/test_in_chromium.py,
holds without.
"""

from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.scriptrunner.script_runner import ScriptRunner
from streamlit.runtime.scriptrunner_utils.script_requests import RerunData

_run_script = ScriptRunner._run_script


def keep_fragments_on_their_page() -> None:
    """Leave out fragments that were asked for on another page than the one drawn last; for the whole process."""
    ScriptRunner._run_script = _run_unless_left


def _run_unless_left(self: ScriptRunner, rerun_data: RerunData) -> None:
    drawn = get_script_run_ctx(suppress_warning=True)
    page = rerun_data.page_script_hash
    if rerun_data.fragment_id_queue and drawn is not None and drawn.page_script_hash not in ("", page):
        return
    _run_script(self, rerun_data)
