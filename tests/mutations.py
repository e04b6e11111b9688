"""Remove guards of the product, one at a time, and print which tests notice.

    python tests/mutations.py [WORD ...]

Exits with 1 if the tests of a guard pass without it. WORDs select the guards whose description contains one of them.
`tests/faults/openface_guards.py` does the same for the guards against OpenFace's behaviour.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "faults"))

from guards import Guard, check

GUARDS = [
    Guard(
        "a damaged shard is found by its checksum",
        "pipeline/storage/shards.py",
        "    if block == user_block(digest):",
        "    if block:",
        "test_shards.py::test_a_flipped_bit_anywhere_is_found",
    ),
    Guard(
        "a file is complete before it has its name",
        "pipeline/atomic.py",
        '    temporary = path.with_name(f"{path.name}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.tmp")',
        "    temporary = path",
        "test_shards.py::test_a_writer_killed_at_each_step",
    ),
    Guard(
        "values that are not finite are refused",
        "pipeline/storage/schema.py",
        '    if name != "times" and array.dtype.kind == "f" and not np.isfinite(array).all():',
        "    if False:",
        "test_shards.py::test_invalid_features_are_refused",
    ),
    Guard(
        "every clip of a shard is checked, not only the last",
        "pipeline/storage/schema.py",
        "        found = check_features(stage, item.features)",
        "        problems, found = [], check_features(stage, item.features)",
        "test_shards.py::test_invalid_features_are_refused",
    ),
    Guard(
        "a clip that kills its worker is given up",
        "pipeline/run/recovery.py",
        "    return lines, [replace(task, clips=(replace(work, stages=rest),))] if rest else []",
        "    return [], [replace(task, clips=(replace(work, stages=rest),))] if rest else []",
        "test_engine.py::test_only_a_clip_that_kills_its_worker_is_given_up",
    ),
    Guard(
        "a clip that hangs is reported as a timeout",
        "pipeline/run/local_engine.py",
        "                hung = True",
        "                hung = False",
        "test_engine.py::test_only_a_clip_that_hangs_is_given_up",
    ),
    Guard(
        "a fingerprint covers the stage's settings",
        "pipeline/stages/fingerprints.py",
        '            "settings": _decisive_settings(stage, recipe),',
        '            "settings": {},',
        "test_stages.py::test_a_setting_changes_its_stage_and_those_downstream",
    ),
    Guard(
        "a fingerprint covers the upstream stages",
        "pipeline/stages/fingerprints.py",
        '            "upstream": {up: result[up] for up in stage.upstream},',
        '            "upstream": {},',
        "test_stages.py::test_a_setting_changes_its_stage_and_those_downstream",
    ),
    Guard(
        "a file that changes during the run is a failure",
        "pipeline/run/group.py",
        '        if digest == work.digests["media"]:',
        "        if True:",
        "test_extraction.py::test_a_file_that_changes_during_the_run_is_a_failure",
    ),
    Guard(
        "decoding: faulty presentation stamps give way to decoding stamps",
        "extractors/media/clock.py",
        "        proven = self.faulty_pts > self.faulty_dts",
        "        proven = False",
        "test_frame_times.py::test_frames_and_sound_are_those_of_the_clip",
    ),
    Guard(
        "decoding: frames and sound of a joined recording are shifted together",
        "extractors/media/joins.py",
        "    frames = seamless.get(main, longest)",
        "    frames = longest = min(seamless.values())",
        "test_frame_times.py::test_shifts_of_known_stamps",
    ),
    Guard(
        "decoding: the sound is of the programme of the frames",
        "extractors/media/opening.py",
        '        audio = container.streams.best("audio", related=video) or audio',
        "        pass",
        "test_frame_times.py::test_frames_and_sound_are_those_of_the_clip[ts with two programmes]",
    ),
    Guard(
        "decoding: a leap that later stamps take back is no hole",
        "extractors/media/sound.py",
        "            wrong = abs(at - resume - waited) <= GAP",
        "            wrong = False",
        "test_media.py::test_stamp_past_the_containers_end_is_not_believed",
    ),
    Guard(
        "decoding: playlists are not followed",
        "extractors/media/opening.py",
        '"format_whitelist": FORMATS, ',
        "",
        "test_damaged_media.py::test_playlists_and_scripts_are_not_followed",
    ),
    Guard(
        "decoding: notes on a damaged file reach the ledger",
        "pipeline/run/group.py",
        "            made = with_media_notes(result, stages()[name], clip.notes)",
        "            pass",
        "test_damaged_media.py::test_notes_on_the_media_reach_the_ledger_of_each_stage",
    ),
    Guard(
        "a second source is merged, and replaces nothing",
        "pipeline/manifest/clips.py",
        "        clips = {clip.id: clip for clip in self.clips}\n        for clip in other",
        "        clips: dict[str, Clip] = {}\n        for clip in other",
        "test_extraction.py::test_a_second_source_is_merged",
    ),
    Guard(
        "a manifest's path stays inside its root",
        "pipeline/manifest/clips.py",
        '    inside = ".." not in pure.parts and pure.name != ""',
        '    inside = pure.name != ""',
        "test_manifest.py",
    ),
    Guard(
        "a pickle constructs known classes alone",
        "pipeline/exchange/pickles.py",
        '            raise _RefusedError(f"the pickle asks for {module}.{name}"[:200]) from None',
        "            return super().find_class(module, name)",
        "test_pickles.py",
    ),
    Guard(
        "the seed decides the split",
        "pipeline/manifest/splits.py",
        'f"{seed}\\0{id}"',
        'f"{id}"',
        "test_splits.py::test_seed_changes_the_assignment",
    ),
    Guard(
        "padding is masked",
        "pipeline/trainer/models/inputs.py",
        "        return self.values.masked_fill(~self.mask[..., None], 0)",
        "        return self.values",
        "test_models.py",
    ),
]

if __name__ == "__main__":
    check(GUARDS)
