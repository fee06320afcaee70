"""Tests of lsf.bundled."""
