"""The product with one defect: each must be caught by the nemesis made for it, or the checker proves nothing.

A mutant is a change of source text, put in when the module is imported (`sitecustomize`, by FAULTS_MUTANT and
PYTHONPATH). The text to be replaced must be there exactly once: a mutant that no longer fits the product stops the role
that imports it, and a unit test says so earlier.
"""
