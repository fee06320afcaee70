"""The words of this project and the names of its axes: one word per thing, everywhere.

| word | meaning |
|---|---|
| block b = 0 .. L-1 | one transformer layer |
| state l = 0 .. L | the residual stream entering block l; state L leaves the last block, before the final norm |
| example | a prompt and its completion |
| position | a place whose next token is predicted: the first completion token, or each of them |
| current token, target token | the token at a position, and the one to be predicted there |
| reading | a state as the head sees it (`lens`), as it is (`raw`), or mapped to the last one (`jacobian`, `affine`) |
| factual transition | the unit readings f_0 .. f_L |
| virtual transition | the straight path on the sphere from the current token's meaning to the target token's |
| deviation | 1 - cos between both, per state, in [0, 2] |
| plan | which blocks are tuned, and why |
| run | one fine-tune, a folder on disk |

Axis names in jaxtyping annotations: `positions`, `examples`, `states` (L+1), `blocks` (L), `width` (d), `vocab` (V),
`k` (the best tokens kept).
"""

POSITIONS = ("first", "all")
READINGS = ("lens", "raw", "jacobian", "affine")
TRANSLATED = ("jacobian", "affine")
"""Readings of a state that is first mapped to where it is heading; see `lsf.lens.translators`."""
VIRTUALS = ("even", "calibrated")
QUANTISED = ("nf4", "int8")
DTYPES = ("auto", "float32", "bfloat16", *QUANTISED)
DEVICES = ("auto", "cuda", "mps", "cpu", "map")
SPLITS = ("auto", "train", "validation", "test", "all")
