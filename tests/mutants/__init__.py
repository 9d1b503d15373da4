"""
Mutation testing of the files whose correctness cannot be seen from outside: ``make mutants``.

mutmut and cosmic-ray were looked at. Both mutate Python syntax only, while half of what matters here is SQL text,
SQLAlchemy expressions and Lua, and neither gives each worker servers of its own.

- ``targets``: the files, and the rooms whose tests are asked.
- ``python``, ``sql``, ``lua``: what is broken, one small change a mutant (``mutant``).
- ``mapping``, ``tests_of``: which tests run which lines.
- ``worker``, ``pool``, ``trees``: a process forked for each mutant, in a copy of the checkout, with servers of its own.
- ``results``, ``report``: what came of it; ``explained.toml`` says why a survivor is equivalent.
"""
