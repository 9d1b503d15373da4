"""Hypothesis: any JSON value, among them the texts that are taken for something else."""

from hypothesis import strategies as st

SPECIAL = st.sampled_from(["1", "0", "null", "true", "false", "1e5", "[]", "{}", '"', "", "$", "\\", "\x00"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS | SPECIAL,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(SPECIAL | st.text(), inner, max_size=4),
    max_leaves=12,
)
RECORDS = st.dictionaries(SPECIAL | st.text(), VALUES, max_size=5)
