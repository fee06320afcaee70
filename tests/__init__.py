"""Tests: the same tree as the package, plus architecture, pages and browser."""
