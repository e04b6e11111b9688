"""Look at a source before its first run: which clips, what they have, and which stages can be extracted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from triptych.extractors.registry import stages
from triptych.extractors.stage import FACES, Input
from triptych.pipeline.environment.doctor import Finding, examine_models
from triptych.pipeline.manifest.clips import SPLITS, Manifest
from triptych.pipeline.manifest.loading import load_manifest
from triptych.pipeline.stages.recipe import Recipe
from triptych.pipeline.start.media import MediaLook, look_at, sample

_HAVING = {
    Input.TEXT: "a transcript",
    Input.WAVEFORM: "sound",
    Input.FRAMES: "frames",
    Input.CROPS: "frames",
    Input.MEDIA: "frames",
}


@dataclass(frozen=True)
class Survey:
    """What was found in a source, and on this machine for it.

    Attributes
    ----------
    manifest
        Its clips.
    looks
        Headers of its files; of many files a part.
    findings
        The models and programs that the default stages need.
    stages
        The stages that this source and this machine can give.
    left_out
        By stage: why it is not among them.
    """

    manifest: Manifest
    looks: tuple[MediaLook, ...]
    findings: tuple[Finding, ...]
    stages: tuple[str, ...]
    left_out: dict[str, str]

    def facts(self) -> list[tuple[str, str]]:
        """Return what was found, as names and values."""
        clips, looks = self.manifest.clips, self.looks
        count = f"{len(clips)}"
        if len(looks) < len(clips):
            count += f"; the headers of {len(looks)} were read"
        facts = [("clips", count)]
        if lengths := [look.seconds for look in looks if look.seconds]:
            total = sum(lengths) * len(clips) / len(looks)
            spread = f"{min(lengths):.1f} to {max(lengths):.1f} s, median {median(lengths):.1f} s"
            facts.append(("length", f"{spread}, about {_duration(total)} in all"))
        silent, blind = sum(not look.sound for look in looks), sum(look.size is None for look in looks)
        facts.append(("sound", f"in {len(looks) - silent} of {len(looks)}"))
        facts.append(("frames", f"in {len(looks) - blind} of {len(looks)}{self._sizes()}"))
        facts.append(("transcripts", f"{sum(bool(clip.text) for clip in clips)} of {len(clips)}"))
        labelled = sum(clip.label == clip.label for clip in clips)
        low, high = self.manifest.label_range
        facts.append(
            ("labels", f"{labelled} of {len(clips)}" + (f", {low:g} to {high:g}" if labelled else ""))
        )
        splits = Counter(clip.split for clip in clips if clip.split)
        facts.append(
            ("splits", ", ".join(f"{name} {splits[name]}" for name in SPLITS if splits[name]) or "none")
        )
        return facts

    def _sizes(self) -> str:
        sizes = Counter(look.size for look in self.looks if look.size).most_common(3)
        rates = sorted(look.rate for look in self.looks if look.rate)
        shown = ", ".join(f"{width} x {height} ({count})" for (width, height), count in sizes)
        if not rates:
            return f": {shown}" if shown else ""
        span = f"{rates[0]:.4g}" if rates[0] == rates[-1] else f"{rates[0]:.4g} to {rates[-1]:.4g}"
        return f": {shown}; {span} frames a second"

    def unusual(self) -> list[tuple[str, int, str]]:
        """Return what is unusual about the files: what, how many, and one of them."""
        found: dict[str, list[Path]] = {}
        for look in self.looks:
            for what in look.unusual:
                found.setdefault(what, []).append(look.path)
        return [
            (what, len(paths), str(paths[0]))
            for what, paths in sorted(found.items(), key=lambda f: -len(f[1]))
        ]


def survey_source(source: Path) -> Survey:
    """Look at a source: read its manifest, the headers of its files, and what is installed. Nothing is written.

    Raises
    ------
    InputError
        The source is invalid.
    """
    manifest = load_manifest(source)
    looks = tuple(look_at(path) for path in sample(list(dict.fromkeys(clip.file for clip in manifest.clips))))
    has_text = any(clip.text for clip in manifest.clips)
    findings = tuple(examine_models(Recipe(), text=has_text))
    usable, left_out = _stages(has_text, looks, {finding.what: finding for finding in findings})
    return Survey(manifest, looks, findings, usable, left_out)


def _stages(
    has_text: bool, looks: tuple[MediaLook, ...], findings: dict[str, Finding]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Choose the default stages that can be extracted; the others with the reason."""
    left_out: dict[str, str] = {}
    has = {
        Input.TEXT: has_text,
        Input.WAVEFORM: any(look.sound for look in looks),
        Input.FRAMES: any(look.size for look in looks),
        Input.CROPS: any(look.size for look in looks),
        Input.MEDIA: any(look.size for look in looks),
    }
    needs = {"text": ("language model",), FACES: ("face detector",), "vision": ("face detector",)}
    for name, stage in stages().items():
        if not stage.default:
            continue
        absent = [_HAVING[one] for one in stage.reads if not has[one]]
        broken = [
            what for what in needs.get(name, ()) if what in findings and findings[what].state == "missing"
        ]
        if absent:
            left_out[name] = f"no clip has {' and no clip has '.join(dict.fromkeys(absent))}"
        elif broken:
            left_out[name] = f"the {broken[0]} is missing here"
        elif name == "vision" and (why := _no_backend(findings)):
            left_out[name] = why
    usable = tuple(name for name, stage in stages().items() if stage.default and name not in left_out)
    return usable, left_out


def _no_backend(findings: dict[str, Finding]) -> str:
    """Return why no vision backend can be used; empty where one can."""
    openface, facemesh = findings["openface"], findings["facemesh"]
    if openface.state == "ok":
        return ""
    if openface.state == "missing":  # it is installed and broken, and `auto` would take it
        return "OpenFace is installed and does not work"
    usable = facemesh.state == "ok" or "the first run fetches it" in facemesh.detail
    return "" if usable else "there is neither facemesh nor OpenFace here"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
