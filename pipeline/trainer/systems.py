"""The registry of systems: which there are, and the file of each. Imports no torch and no numpy by itself.

A *family* of systems is one file: the settings class, the defaults of its named systems, the torch module and, where
it has its own, the objective. The file registers them::

    @register_model(LowRankSettings, {"lmf": LowRankSettings(...), "mlmf": LowRankSettings(...)})
    class LowRankFusion(FusedSubnetworks):  # called as LowRankFusion(settings, widths, text_length)
        ...

Files of this package are listed in `BUILT_IN`; other distributions name theirs in the entry-point group
``triptych.models``, one entry for each system: ``self-mm = "my_package.self_mm"``. So the names are known without
importing a file, and a file (with torch) is imported when one of its systems is used.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from triptych.pipeline.documents import read_json
from triptych.pipeline.errors import InputError
from triptych.pipeline.escaped import quoted, shown
from triptych.pipeline.trainer.settings import SystemSettings

if TYPE_CHECKING:
    from triptych.pipeline.trainer.models.inputs import InputWidths
    from triptych.pipeline.trainer.models.system import System

GROUP = "triptych.models"
PACKAGE = "triptych.pipeline.trainer.models"

# The files of `models/` that define families, and their named systems, in the order of the paper's Table 2.
BUILT_IN: dict[str, tuple[str, ...]] = {
    "early_fusion": ("ef-lstm",),
    "memory_fusion": ("mfn",),
    "transformer": ("mult",),
    "late_fusion": ("lf-dnn", "mlf-dnn"),
    "tensor_fusion": ("tfn", "mtfn"),
    "low_rank": ("lmf", "mlmf"),
    "unimodal": (),
}

Network = TypeVar("Network", bound="type[System]")


@dataclass(frozen=True)
class Family:
    """One family of systems, as its file registered it.

    Attributes
    ----------
    network
        The torch module; ``network(settings, widths, text_length)`` makes one.
    systems
        Default settings of the named systems.
    titles
        How systems are written in tables, where not in capitals.
    extends
        Of a multi-task system, the single-task system that tables compare it with.
    """

    settings: type[SystemSettings]
    network: type[System]
    systems: Mapping[str, SystemSettings] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)
    extends: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The only value of the settings' field ``family``."""
        return family_name(self.settings)


_FAMILIES: dict[str, Family] = {}  # by name, in the order of registration


def register_model(
    settings: type[SystemSettings],
    systems: Mapping[str, SystemSettings] | None = None,
    *,
    titles: Mapping[str, str] | None = None,
    extends: Mapping[str, str] | None = None,
) -> Callable[[Network], Network]:
    """Register a family of systems; decorates its torch module.

    Parameters
    ----------
    settings
        The family's settings class, with a field ``family: Literal["its-name"] = "its-name"``.
    systems
        The named systems and their default settings.
    titles
        How systems are written in tables, where not in capitals.
    extends
        Of a multi-task system, the single-task system that tables compare it with.

    Raises
    ------
    ValueError
        The settings have no family name, or another file has registered the family or one of the systems.
    """

    def register(network: Network) -> Network:
        family = Family(settings, network, systems or {}, titles or {}, extends or {})
        source = (network.__module__, network.__qualname__)
        for other in _FAMILIES.values():
            if (other.network.__module__, other.network.__qualname__) == source:
                continue  # the same file once more: a reload
            if other.name == family.name:
                raise ValueError(
                    f"family {family.name!r} is registered by {other.network.__module__} already"
                )
            if common := other.systems.keys() & family.systems.keys():
                raise ValueError(
                    f"system {min(common)!r} is registered by {other.network.__module__} already"
                )
        _FAMILIES[family.name] = family
        return network

    return register


def family_name(settings: type[SystemSettings]) -> str:
    """Return the family's name that a settings class gives as the default of its field ``family``.

    Raises
    ------
    ValueError
        It gives none.
    """
    declared = settings.model_fields.get("family")
    if declared is None or not isinstance(declared.default, str):
        raise ValueError(f"{settings.__name__} needs a field family with its name as default")
    return declared.default


class _Systems(Mapping[str, SystemSettings]):
    """Default settings of every system by name; a lookup imports the system's file, listing names does not."""

    def __getitem__(self, name: str) -> SystemSettings:
        return family_of(name).systems[name]

    def __iter__(self) -> Iterator[str]:
        registered = (name for family in _FAMILIES.values() for name in family.systems)
        return iter(dict.fromkeys([*_built_in(), *_external(), *registered]))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in list(self)


SYSTEMS: Mapping[str, SystemSettings] = _Systems()


def family_of(name: str) -> Family:
    """Return the family of a named system; imports its file.

    Raises
    ------
    KeyError
        No system has this name.
    InputError
        Another distribution's entry point cannot be imported, or does not register the system.
    """
    if name in _built_in():
        import_module(f"{PACKAGE}.{_built_in()[name]}")
    elif name in _external() and not _registered(name):
        _import(_external()[name])
    if family := _registered(name):
        return family
    raise KeyError(name)


def title_of(name: str) -> str:
    """Return how a system is written in tables."""
    return family_of(name).titles.get(name, name.upper())


def twin_of(name: str) -> str | None:
    """Return the single-task system that a multi-task one extends, if any."""
    return family_of(name).extends.get(name)


def settings_from(values: Any, where: str) -> SystemSettings:
    """Validate plain values as the settings of the family that they name.

    Parameters
    ----------
    values
        What `SystemSettings.model_dump` gave, or a JSON file has.
    where
        Begins each error message.

    Raises
    ------
    InputError
        The family is unknown or values are invalid: every error.
    """
    name = values.get("family") if isinstance(values, dict) else None
    settings = _settings_class(name) if isinstance(name, str) else None
    if settings is None:
        known = ", ".join(sorted(_FAMILIES))
        raise InputError(f"{where}: family {quoted(name)} is unknown; installed families are {known}")
    try:
        return settings.model_validate(values)
    except ValidationError as error:
        raise InputError(
            [
                f"{where}: {shown('.'.join(map(str, one['loc'])))}: {shown(one['msg'])}"
                for one in error.errors(include_input=False)
            ]
        ) from error


def read_settings(path: Path) -> SystemSettings:
    """Read a JSON file of settings, as `triptych tune` writes it.

    Raises
    ------
    InputError
        The file is missing, not JSON, or its settings are invalid.
    """
    try:
        values = read_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({shown(str(error))}); `triptych tune` writes one"
        ) from error
    return settings_from(values, str(path))


def build(settings: SystemSettings, widths: InputWidths, text_length: int) -> System:
    """Make the torch module that settings describe, with weights drawn from torch's generator.

    All of them are called with text, audio and vision and return a prediction by task, shape (B,) each; the
    text is `Padded`, the others are what `settings.view` names: means, shape (B, D), or `Padded`.

    Parameters
    ----------
    widths
        Columns of the three inputs.
    text_length
        Longest text, in rows.

    Raises
    ------
    TypeError
        No family is registered for settings of this type.
    """
    network: Callable[[SystemSettings, InputWidths, int], System] = _of_settings(type(settings)).network
    return network(settings, widths, text_length)


@cache
def source_digest(settings: type[SystemSettings]) -> str:
    """SHA-256 of the file that defines a family of another distribution; empty for a family of this package.

    The files of this package are part of `runs.identity.code_digest`.

    Raises
    ------
    InputError
        The family was not defined in a file, so saved results cannot be distinguished from those of other code.
    """
    network = _of_settings(settings).network
    if network.__module__.startswith(f"{PACKAGE}."):
        return ""
    try:
        file = inspect.getsourcefile(network)
        content = Path(file).read_bytes() if file else None
    except (TypeError, OSError):
        content = None
    if content is None:
        raise InputError(
            f"{network.__qualname__} has no source file, which the key of saved results covers; "
            "define the system in a Python file"
        )
    return sha256(content).hexdigest()


def _of_settings(settings: type[SystemSettings]) -> Family:
    for family in _FAMILIES.values():
        if family.settings is settings:
            return family
    raise TypeError(f"no system is registered for settings of type {settings.__name__}")


def _settings_class(name: str) -> type[SystemSettings] | None:
    """Return a family's settings class; imports files of this package first, then those of others."""
    for module in BUILT_IN:
        if name not in _FAMILIES:
            import_module(f"{PACKAGE}.{module}")
    for entry in _external().values():
        if name not in _FAMILIES:
            _import(entry)
    return _FAMILIES[name].settings if name in _FAMILIES else None


def _registered(name: str) -> Family | None:
    return next((family for family in _FAMILIES.values() if name in family.systems), None)


@cache
def _built_in() -> Mapping[str, str]:
    return {name: module for module, names in BUILT_IN.items() for name in names}


def _external() -> Mapping[str, EntryPoint]:
    """Entry points of other distributions by the name of their system; a built-in name stays the built-in's."""
    return {entry.name: entry for entry in entry_points(group=GROUP) if entry.name not in _built_in()}


def _import(entry: EntryPoint) -> None:
    """Import an entry point's file, which registers its systems."""
    owner = entry.dist.name if entry.dist else "an installed distribution"
    try:
        entry.load()
    except Exception as error:
        raise InputError(
            f"system {entry.name}: {owner} cannot be imported ({type(error).__name__}: {error}); "
            "update or uninstall it"
        ) from error
    if _registered(entry.name) is None:
        raise InputError(
            f"system {entry.name}: {entry.value} of {owner} registers no system of this name; "
            "its entry point and register_model must use the same name"
        )
