"""The kinds of runs, one module each; a new file here is a new kind, with no edit anywhere else.

Every module has the same names: `Spec` (a RunSpec with a literal `kind`), `TABLES` (the record tables it adds),
`execute(spec, job)` -> the headline numbers, `estimate(spec, upstream)` -> what it costs, `title(spec)`.
"""
