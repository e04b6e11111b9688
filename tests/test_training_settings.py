"""`train --set`: single settings of a system."""

from __future__ import annotations

import pytest

from triptych.pipeline.errors import InputError
from triptych.pipeline.trainer.overrides import with_assignments
from triptych.pipeline.trainer.systems import SYSTEMS


def test_settings_are_changed_by_name():
    before = SYSTEMS["mlf-dnn"]
    after = with_assignments(
        before,
        [
            "learning_rate=0.5",
            "dropout.text=0.4",
            "task_weights.T=0.3",
            "padding=counted",
            "gradient_clip=none",
        ],
    )
    assert (after.learning_rate, after.padding, after.gradient_clip) == (0.5, "counted", None)
    assert (after.dropout.text, after.dropout.audio) == (0.4, before.dropout.audio)
    assert after.task_weights == {**before.task_weights, "T": 0.3}
    assert with_assignments(before, []) is before


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("learning_rat=1", r"setting learning_rat is unknown; .* Did you mean learning_rate\?$"),
        ("dropot.text=0.1", r"Did you mean dropout\.text\?$"),
        ("learning_rate=-1", r"learning_rate: Input should be greater than 0"),
        ("learning_rate", r"--set learning_rate: expected NAME=VALUE"),
        ("family=unimodal", r"setting family is unknown"),
    ],
)
def test_wrong_settings_are_refused(assignment, message):
    with pytest.raises(InputError, match=message):
        with_assignments(SYSTEMS["lf-dnn"], [assignment])
