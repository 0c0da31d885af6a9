"""Published evaluation logs of other tools -> records and results. No torch.

An imported log is read into the same records as our own scoring leaves, so every aggregate is recomputed from its rows.
Where a log gives only a score per row and not what it was computed from, the score goes into `Record.scores` under the
metric's name.
"""
