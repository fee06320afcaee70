"""The app: `streamlit run app.py`."""

import streamlit as st

st.set_page_config(
    page_title="LSF: where to fine-tune",
    page_icon=":material/layers:",
    layout="wide",
    initial_sidebar_state="collapsed",
    menu_items={"About": "LSF shows which layers of a language model are worth tuning, with evidence."},
)
st.navigation(
    [
        st.Page("pages/model.py", title="1 Model and data", icon=":material/deployed_code:", default=True),
        st.Page("pages/trajectories.py", title="2 Trajectories", icon=":material/route:"),
        st.Page("pages/choose.py", title="3 Choose", icon=":material/checklist:"),
        st.Page("pages/tune.py", title="4 Fine-tune", icon=":material/model_training:"),
        st.Page("pages/compare.py", title="5 Compare", icon=":material/compare_arrows:"),
    ],
    position="top",
).run()
