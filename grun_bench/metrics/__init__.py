"""Metrics: pure functions of records, one small function each. No torch.

A metric asks for records by what their set is to unlearning, never by a set's name: `forget`, `retain`, `utility`,
`holdout` or `neighbour` (`grun_bench.tasks.roles`). It takes one of two shapes::

    @metric("word_count", roles=("forget", "retain"), higher_is_better=None, bounds=(0, float("inf")))
    def word_count(rows):             # the records of one set -> one value per row
        return np.array([len(row.generation.text.split()) for row in rows])

    @metric("gap", over=("forget", "retain"), higher_is_better=True)
    def gap(records, reference):      # all records (and the retain model's) -> one number
        return loss(records.of("forget")) - loss(records.of("retain"))

The first is applied to each set with one of the `roles` and reported as `<set>_<name>` (`forget_word_count`): mean, n
and a 95 % bootstrap interval; `rows` has the set's `name` and `role`. The second is reported as `<name>`, with n the
number of rows of the sets with the roles in `over`; `records.of(role)` are the rows of all sets with a role,
`records.each(role)` the same set by set.

A metric returns a number, an array with one value per row, or a dict of these; a dict's keys take the name's place.
It raises `MissingReference` (or puts one in the dict) where its input is not there: the value is then null with that
reason. So it is where no set has the role: of a metric with `roles` under `<role>_<name>`, if none has any of them.
Options, all but `roles` or `over` optional:

- `higher_is_better`: True, False, None (no direction); "kept" where higher is better on what is to be kept and lower on
  what is to be forgotten, as it is of knowledge, or "forgotten" for the reverse; or a dict of these by key of the dict
  returned;
- `bounds`: (lowest, highest) possible value;
- `kind="questions"`: over lm-eval's tasks in place of sets of questions with answers;
- `reference="retain"`: needs the retain model's records; without them the function is not called;
- `leaves_out`: a function of a record and its set's role that says why there is nothing to measure in it (an answer
  without a token), None where there is. The metric is given the others alone (of the sets with the roles in `over`), n
  counts those, and the value's reason says how many were left out. Where that would be all, it is given them all;
- `divergence=True`: reads `row.scores["kl_to_target"]`, which takes what the target model said of the row: kept of the
  sets with these roles where such a metric is asked for;
- `gradients=True`: reads `row.scores["gradient_norm"]`, which takes a backward pass a row: scoring keeps it of the sets
  with these roles where such a metric is asked for;
- `sentences=True`: reads `row.scores["similarity"]`, how alike what was written is to the answer, by a model that
  embeds sentences; kept likewise;
- `classifier=True`: reads `row.scores["fluency"]`, how likely what was written is no gibberish, by a classifier; kept
  likewise;
- `version`: an integer, raised when the definition changes (1 if left out).
"""
