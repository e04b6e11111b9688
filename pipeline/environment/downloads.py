"""Download of the models that a run would otherwise download at its start."""

from __future__ import annotations

from collections.abc import Collection

from triptych.extractors.registry import stages
from triptych.extractors.stage import Downloaded
from triptych.pipeline.stages.graph import with_upstream
from triptych.pipeline.stages.recipe import Recipe


def pull(recipe: Recipe, only: Collection[str] = ()) -> dict[str, Downloaded]:
    """Download the models of a recipe's stages, those that come with no package; by stage.

    Cached models are not downloaded again.

    Parameters
    ----------
    only
        These stages instead of the recipe's, and those that they read from.

    Raises
    ------
    triptych.extractors.base.BackendMissingError
        The hub cannot be reached or does not have the model; the text says how else to get it.
    """
    return {
        name: found
        for name in with_upstream(only or recipe.stages)
        if (download := stages()[name].download) is not None
        and (found := download(recipe.section(name))) is not None
    }
