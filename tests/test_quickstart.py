"""The quickstart notebook, executed cell by cell in a process and a folder of its own."""

from pathlib import Path

import nbformat
import pytest

from tests.children import finished

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "notebooks" / "quickstart.ipynb"
CHECKS = """
assert run.result.proof.frozen_identical and len(lsf.compare(run, whole).rows) == 2
assert analysis.model.name == "mine" and len(plan.blocks) == 1
assert proof.proof.frozen_identical and not proof.proof.tuned_unmoved
assert {
    name.split("layers.")[1].split(".")[0] for name, value in adapted.named_parameters() if value.requires_grad
} == {
    str(block) for block in plan.blocks
}
"""
"""What must be so once all cells have run."""


@pytest.mark.slow
def test_the_quickstart_runs_from_any_folder_and_uses_lsf_alone(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert not any("lsf." in line and "import" in line for cell in code for line in cell.splitlines())
    (tmp_path / "cells.py").write_text("\n\n".join([*code, CHECKS]), encoding="utf-8")
    done = finished("cells.py", folder=tmp_path)
    assert done.poll() == 0, done.err[-3000:]
