"""The notebooks in examples/ run from the first cell to the last, and are committed without outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_has_no_outputs(notebook: Path) -> None:
    document = json.loads(notebook.read_text(encoding="utf-8"))
    code = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    assert len(code) <= 12
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def shown(cells: list[dict[str, Any]]) -> str:
    """Everything that the cells printed or returned, as text."""
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    texts = [output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs]
    return "\n".join(texts)


EXPECTED = {
    "one_clip": ("Figure", "AU"),
    "own_videos": ("audio 4 done", "median F0"),
    "training_and_tables": ("lmf, seeds 1, 12", "log_f0_amean", "'audio_mask': (4,"),
}


@pytest.mark.slow
def test_the_notebooks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("TRIPTYCH_EXAMPLES", str(tmp_path / "examples"))  # they share their clips
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    assert [path.stem for path in NOTEBOOKS] == sorted(EXPECTED)
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        client = nbclient.NotebookClient(
            notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}
        )
        client.execute()
        text = shown(notebook.cells)
        assert all(expected in text for expected in EXPECTED[path.stem]), f"{path.stem}:\n{text}"
