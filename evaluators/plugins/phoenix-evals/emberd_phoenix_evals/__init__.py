"""Every metric of `arize-phoenix-evals`, served to emberd. `python3 -m emberd_phoenix_evals`.

- `settings`: the judging model, out of the environment.
- `metrics`: which metrics there are, what they need, give and can be told; out of `describe()` of each.
- `failures`: what their exceptions mean to emberd.
"""
