"""The script of a class's app: two pages, and no folder of others beside it for Streamlit to find."""

import streamlit as st

from lsf.app.classroom.pages import draw_student, draw_teacher
from lsf.app.panels import READABLE

STYLE = """<style>
[data-testid="stMainBlockContainer"] { max-width: 70rem; padding-top: 2rem; }
@media (min-width: 1600px) { html { font-size: 20px; } }
</style>"""

st.set_page_config(page_title="LSF class", layout="wide")
st.html(STYLE + READABLE)
st.navigation(
    [
        st.Page(draw_student, title="Lesson", url_path="lesson", default=True),
        st.Page(draw_teacher, title="Teacher", url_path="teacher"),
    ],
    position="hidden",
).run()
