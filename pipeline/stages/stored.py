"""A feature folder's recipe.json: its settings, its fingerprints, and those that are being replaced.

When settings change, the features of the old settings stay readable until the new ones are complete: the file names
the old settings of such a stage under ``superseded``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from triptych.extractors.registry import stages
from triptych.pipeline.atomic import write_whole
from triptych.pipeline.documents import read_json
from triptych.pipeline.errors import InputError
from triptych.pipeline.escaped import shown
from triptych.pipeline.stages.recipe import Recipe

STORED = "recipe.json"


def store_recipe(folder: Path, recipe: Recipe, fingerprints: Mapping[str, str]) -> None:
    """Write a feature folder's recipe.json: every setting, resolved, and the stages' fingerprints.

    The old settings of stages whose fingerprint changes stay in it, under ``superseded``, until
    `release_superseded`. Sections of stages that are not installed now stay unchanged.
    """
    before = _read(folder / STORED) or {"recipe": {}, "fingerprints": {}, "superseded": {}}
    foreign = {name: before["fingerprints"][name] for name in before["fingerprints"] if name not in stages()}
    sections = {name: before["recipe"][name] for name in foreign if name in before["recipe"]}
    superseded = {
        name: before["superseded"].get(
            name, {"fingerprint": fingerprint, "settings": before["recipe"].get(name, {})}
        )
        for name, fingerprint in before["fingerprints"].items()
        if name in before["superseded"] or fingerprints.get(name, fingerprint) != fingerprint
    }
    _write(
        folder,
        {**recipe.model_dump(mode="json"), **sections},
        {**fingerprints, **foreign},
        {
            name: old
            for name, old in superseded.items()
            if old["fingerprint"] != fingerprints.get(name)  # not where a setting was changed back
        },
    )


def release_superseded(folder: Path, names: Collection[str]) -> None:
    """Forget the old settings of stages whose new features are complete."""
    found = _read(folder / STORED)
    if found and not found["superseded"].keys().isdisjoint(names):
        remaining = {name: old for name, old in found["superseded"].items() if name not in names}
        _write(folder, found["recipe"], found["fingerprints"], remaining)


def superseded_fingerprints(folder: Path) -> dict[str, str]:
    """Return the old fingerprint of each installed stage whose new features are not complete yet."""
    found = _read(folder / STORED)
    if found is None:
        return {}
    return {name: old["fingerprint"] for name, old in found["superseded"].items() if name in stages()}


def stored_recipe(folder: Path) -> dict[str, Any] | None:
    """Read a feature folder's recipe.json: its ``recipe`` and ``fingerprints``, or None if it is missing.

    Stages that are not installed now are left out.

    Raises
    ------
    InputError
        It is damaged.
    """
    found = _read(folder / STORED)
    return None if found is None else _installed(found)


def with_superseded(folder: Path, names: Collection[str]) -> dict[str, Any]:
    """Read recipe.json as `stored_recipe` does, with the old settings and fingerprints of the named stages."""
    found = _read(folder / STORED)
    if found is None:
        raise FileNotFoundError(folder / STORED)
    for name in found["superseded"].keys() & set(names):
        old = found["superseded"][name]
        found["recipe"][name], found["fingerprints"][name] = old["settings"], old["fingerprint"]
    return _installed(found)


def foreign_stages(folder: Path) -> tuple[str, ...]:
    """Stages that a feature folder has settings of and that are not installed at the moment."""
    found = _read(folder / STORED)
    return tuple(sorted(found["fingerprints"].keys() - stages().keys())) if found else ()


def _installed(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    foreign = found["fingerprints"].keys() - stages().keys()
    return {
        part: {name: value for name, value in found[part].items() if name not in foreign}
        for part in ("recipe", "fingerprints")
    }


def _write(
    folder: Path, recipe: Mapping[str, Any], fingerprints: Mapping[str, str], superseded: Mapping[str, Any]
) -> None:
    document = {"recipe": recipe, "fingerprints": fingerprints}
    if superseded:
        document["superseded"] = superseded
    write_whole(folder / STORED, json.dumps(document, indent=2, ensure_ascii=False).encode())


def _read(path: Path) -> dict[str, dict[str, Any]] | None:
    try:
        return _typed(read_json(path.read_bytes()))
    except FileNotFoundError:
        return None
    except KeyError as error:
        raise InputError(
            f"{path}: not the recipe of a feature folder ({error} is missing). Name a folder that "
            "`triptych extract` made"
        ) from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: cannot be read ({type(error).__name__}: {shown(str(error))}). Remove it; `triptych extract` "
            "writes it again for the recipe that it is given"
        ) from error


def _typed(stored: Any) -> dict[str, dict[str, Any]]:
    """Return the three parts of recipe.json; a KeyError names a missing one, a TypeError one of the wrong type."""
    recipe, fingerprints = _table(stored["recipe"], "recipe"), _table(stored["fingerprints"], "fingerprints")
    for name in recipe.keys() & {"media", "imported", *fingerprints, *stages()}:
        _table(recipe[name], f"recipe.{name}")
    superseded = _table(stored.get("superseded", {}), "superseded")
    old = {
        name: {
            "fingerprint": entry["fingerprint"],
            "settings": _table(entry["settings"], f"superseded.{name}"),
        }
        for name, entry in superseded.items()
    }
    texts = [*fingerprints.values(), *(entry["fingerprint"] for entry in old.values())]
    if "imported" in recipe:
        texts.append(recipe["imported"]["file"])
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a fingerprint or file name is not text")
    return {"recipe": recipe, "fingerprints": fingerprints, "superseded": old}


def _table(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{name} is not an object")
    return dict(value)
