"""Metrics: pure functions of records, one small function each. No torch.

A metric takes one of two shapes, told by the decorator option `sets`::

    @metric("word_count", sets=SETS, higher_is_better=None, bounds=(0, float("inf")))
    def word_count(rows):             # the rows of one set -> one value per row
        return np.array([len(row.generation.text.split()) for row in rows])

    @metric("gap", over=("forget", "retain"), higher_is_better=True)
    def gap(records, reference):      # all records (and the retain model's) -> one number
        return ...

The first is applied to each of `sets` and reported as `<set>_<name>` (`forget_word_count`): mean, n and a 95 %
bootstrap interval. The second is reported as `<name>`, with n the number of rows of the sets `over`.

A metric returns a number, an array with one value per row, or a dict of these; a dict's keys take the name's place.
It raises `MissingReference` (or puts one in the dict) where its input is not there: the value is then null with that
reason. Options, all but `sets` or `over` optional:

- `higher_is_better`: True, False, None (no direction), or a dict of these by set or by key of the dict returned;
- `bounds`: (lowest, highest) possible value;
- `reference="retain"`: needs the retain model's records; without them the function is not called;
- `version`: an integer, raised when the definition changes (1 if left out).
"""
