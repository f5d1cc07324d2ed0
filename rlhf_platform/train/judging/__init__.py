"""Language models that judge, in a run: served, measured, asked again."""
