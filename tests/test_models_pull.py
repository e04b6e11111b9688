"""`triptych models pull`: what it fetches is what a run needs, and all that it needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hub_standin import COMMIT, HubServer, serving
from huggingface_hub import constants

from triptych.extractors.base import BackendMissingError
from triptych.extractors.pretrained import resolve_model
from triptych.extractors.text.encoder import TextEncoder
from triptych.extractors.text.stage import TextSettings
from triptych.pipeline.cli.main import cli
from triptych.pipeline.errors import InputError

NAME = "stand/in"


def lead_to(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what HF_ENDPOINT does to a process that has yet to import the hub's client."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)  # made once


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a hub that nobody answers for."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    lead_to("http://127.0.0.1:9", monkeypatch)
    return tmp_path / "cache"


@pytest.fixture
def hub(cache: Path, small_bert: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serving(small_bert, NAME) as server:
        lead_to(server.endpoint, monkeypatch)
        yield server


def pull(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["models", "pull", *arguments], standalone_mode=False)


def pulled(*arguments: str) -> dict[str, str]:
    result = pull("--only", "text", *arguments)
    assert result.exception is None, result.exception
    header, row = result.stdout.splitlines()
    return dict(zip(header.split(), row.split(), strict=True))


def test_after_it_a_run_neither_downloads_nor_exports(
    hub: HubServer, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / "exports"))
    report = pulled("--set", f"text.model={NAME}")
    assert (report["model"], report["revision"]) == (NAME, COMMIT)
    assert cache in Path(report["folder"]).parents
    assert any("model.safetensors" in path for path in hub.asked)
    hub.asked.clear()
    monkeypatch.setattr("triptych.extractors.text.export.export_model", None)
    settings = resolve_model(TextSettings(model=NAME, revision=""))
    assert len(TextEncoder(settings).extract(["我不想"])[0]) == 5
    assert hub.asked == []


def test_a_cache_without_the_weights_is_completed(hub: HubServer) -> None:
    assignments = ("--set", f"text.model={NAME}", "--set", f"text.revision={COMMIT}")
    weights = Path(pulled(*assignments)["folder"]) / "model.safetensors"
    weights.resolve().unlink()
    weights.unlink()
    pulled(*assignments)
    assert weights.is_file()


def test_without_a_hub_the_error_explains_how_to_get_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # between its retries
    error = pull("--set", f"text.model={NAME}").exception
    assert isinstance(error, BackendMissingError)
    assert str(error).startswith(f"text.model = {NAME}: cannot be loaded")
    assert "set HF_HOME to it, or give a folder" in str(error)


def test_a_model_missing_on_the_hub_is_named(hub: HubServer) -> None:
    error = pull("--set", "text.model=nobody/nothing").exception
    assert isinstance(error, BackendMissingError)
    assert "text.model = nobody/nothing" in str(error)
    assert any("nobody/nothing" in path for path in hub.asked)


def test_a_folder_needs_no_hub(hub: HubServer, small_bert: Path) -> None:
    report = pulled("--set", f"text.model={small_bert}")
    assert report == {"model": str(small_bert), "revision": "-", "stage": "text", "folder": str(small_bert)}
    assert hub.asked == []


def test_the_recipe_decides_which_model(hub: HubServer, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(f'[text]\nmodel = "{NAME}"\n')
    assert pulled("--recipe", str(recipe))["model"] == NAME
    recipe.write_text('[text]\nmodle = "x"\n')
    error = pull("--recipe", str(recipe)).exception
    assert isinstance(error, InputError)
    assert "text.modle: unknown setting" in str(error)
