"""The app: `streamlit run app.py`."""

import streamlit as st

from lsf.app.frame import keep_fragments_on_their_page

NAVIGATION = "client.showSidebarNavigation"
# Four blocks, one of them tuned. Written out here: Streamlit would fetch a named icon from the network.
ICON = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'><g fill='#0072B2'><rect x='4' y='3' width='24' "
    "height='5' rx='1.5'/><rect x='4' y='10' width='24' height='5' rx='1.5'/><rect x='4' y='24' width='24' height='5' "
    "rx='1.5'/></g><rect x='4' y='17' width='24' height='5' rx='1.5' fill='#D55E00'/></svg>"
)

keep_fragments_on_their_page()
st.set_page_config(
    page_title="LSF: where to fine-tune",
    page_icon=ICON,
    layout="wide",
    initial_sidebar_state=236,
    menu_items={"About": "LSF shows which layers of a language model are worth tuning, with evidence."},
)
page = st.navigation(
    {
        "": [
            st.Page("pages/start.py", title="Start", default=True),
            st.Page("pages/model.py", title="1 Model and data"),
            st.Page("pages/trajectories.py", title="2 Trajectories"),
            st.Page("pages/criteria.py", title="3 Criteria"),
            st.Page("pages/choose.py", title="4 Choose"),
            st.Page("pages/tune.py", title="5 Fine-tune"),
            st.Page("pages/compare.py", title="6 Compare"),
        ],
        "More": [
            st.Page("pages/blocks_by_methods.py", title="Blocks x methods"),
            st.Page("pages/dimension.py", title="Intrinsic dimension"),
            st.Page("pages/evidence.py", title="Evidence"),
            st.Page("pages/lessons.py", title="Lessons"),
        ],
    },
    expanded=True,
)
if not st.get_option(NAVIGATION):  # .streamlit/config.toml says why it is off until here
    st.set_option(NAVIGATION, True)
    st.rerun()
page.run()
