"""What users import and call is as it was recorded: a change of it is a decision, and a line in the CHANGELOG."""

import difflib

from tests.house import public_face


def test_the_public_face_is_as_recorded():
    recorded = public_face.RECORD.read_text(encoding="utf-8").splitlines()

    changes = list(difflib.unified_diff(recorded, public_face.current().splitlines(), "recorded", "found", lineterm=""))

    assert changes == [], "\n".join(changes) + "\nIf it is meant, run: python -m tests.house.public_face"
