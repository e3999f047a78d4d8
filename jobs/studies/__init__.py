"""The studies, one module each; a new file here is a new study, with no edit anywhere else.

Every module has the same names: `Spec` (a StudySpec with a literal `kind`), `PRESETS`, `expand(spec)` -> planned
runs in an order in which each comes after its inputs, `RECORDS` (the record tables that its results read),
`results(spec, roles, tables)` -> named result tables, and `headline(tables)` -> the answer as a terminal shows it.
"""
