"""OpenFace's CSV: real ones, and damaged ones."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from triptych.extractors.vision.columns import VISION_COLUMNS
from triptych.extractors.vision.openface.table import (
    ABOUT_THE_FRAME,
    TornTableError,
    WrongColumnsError,
    read_table,
)

NAMES = [name for name, _ in VISION_COLUMNS]
REAL = {"default": 288, "changeLighting": 88, "changeLighting_mtcnn_crops": 88}


@pytest.mark.parametrize("name", REAL)
def test_real_tables_are_read_by_name(test_data: Path, name: str) -> None:
    path = test_data / "openface" / f"{name}.csv"
    table = read_table(path)
    with path.open(newline="") as file:
        rows = [{key.strip(): float(cell) for key, cell in row.items()} for row in csv.DictReader(file)]
    assert len(table) == len(rows) == REAL[name]
    expected = np.array([[row[column] for column in NAMES] for row in rows])
    np.testing.assert_array_equal(table.values, expected)
    np.testing.assert_array_equal(table.success, [row["success"] == 1 for row in rows])
    np.testing.assert_allclose(table.confidence, [row["confidence"] for row in rows], rtol=1e-6)
    assert np.isfinite(table.values.astype(np.float32)).all()


def test_our_columns_are_openfaces_own_in_its_order(test_data: Path) -> None:
    listed = (test_data / "openface" / "columns.txt").read_text().split()
    assert listed == [*ABOUT_THE_FRAME, *NAMES]


def written(path: Path, rows: int = 3, *, separator: str = ",", names: list[str] | None = None) -> Path:
    names = names or [*ABOUT_THE_FRAME, *NAMES]
    lines = [
        [str(index + 1) if name == "frame" else "1" if name == "success" else f"{index}.5" for name in names]
        for index in range(rows)
    ]
    path.write_text("".join(separator.join(cells) + "\n" for cells in [names, *lines]))
    return path


@pytest.mark.parametrize("separator", [",", ", ", " , "])
def test_spaces_round_the_separator_do_not_matter(tmp_path: Path, separator: str) -> None:
    table = read_table(written(tmp_path / "a.csv", separator=separator))
    np.testing.assert_array_equal(table.values, np.repeat([[0.5], [1.5], [2.5]], 709, axis=1))


def test_columns_are_found_by_name_whatever_their_order(tmp_path: Path) -> None:
    names = [*ABOUT_THE_FRAME, *NAMES]
    shuffled = [*names[::-1], "something_new"]
    path = written(tmp_path / "a.csv", names=shuffled)
    lines = path.read_text().splitlines()
    row = lines[1].split(",")
    row[shuffled.index("x_0")], row[shuffled.index("X_0")] = "7", "8"  # names differ by case alone
    path.write_text("\n".join([lines[0], ",".join(row)]) + "\n")
    values = read_table(path).values[0]
    assert (values[NAMES.index("x_0")], values[NAMES.index("X_0")]) == (7, 8)


def test_missing_columns_are_named(tmp_path: Path) -> None:
    names = [name for name in [*ABOUT_THE_FRAME, *NAMES] if name not in ("AU28_c", "p_33")]
    with pytest.raises(WrongColumnsError, match=r"712 columns and misses 2 .*p_33, AU28_c"):
        read_table(written(tmp_path / "a.csv", names=names))


def test_a_table_without_rows_has_none(tmp_path: Path) -> None:
    assert len(read_table(written(tmp_path / "a.csv", rows=0))) == 0


@pytest.mark.parametrize(
    ("keep", "message"),
    [(0, "header"), (100, "header"), (-3000, "columns changed|number of columns|convert")],
)
def test_a_table_that_breaks_off_is_torn(tmp_path: Path, keep: int, message: str) -> None:
    path = written(tmp_path / "a.csv")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TornTableError, match=message):
        read_table(path)


def test_rows_of_other_images_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[1], lines[3]]))
    with pytest.raises(TornTableError, match="order"):
        read_table(path)


def test_a_missing_table_differs_from_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "none.csv")
