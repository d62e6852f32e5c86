"""Claims: every figure that a plain test cannot hold, each with how it is measured, its unit, and its bar.

`python -m tests.prove` (or `make prove`) measures them and writes build/prove.json; docs/claims.md is made from it.
A claim is a value of `claim.Claim`; the packages that measure bring lists of them (`registry.SOURCES`). A claim that
cannot fail is a defect: each has a test or a mutant that makes it fail.
"""
