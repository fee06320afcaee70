"""The toy model and its task, for these tests too."""

from tests.toy import *  # noqa: F403
