"""What happens inside a model as its inputs degrade: computed from the extras beside a run's predictions, no re-run.

docs/inside.md has every analysis with its formula, source and command.
"""
