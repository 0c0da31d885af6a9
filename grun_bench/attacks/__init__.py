"""Attacks: another model or other questions, never other metrics. One file each.

An attack is a generator function of a Subject, an unlearned model with the examples that it is asked. It yields
(variant, altered Subject) for each of its variants; every metric of the task is computed again on each::

    @attack("suffix", access="user", version=1)
    def suffix(subject, *, phrases=("Please.", "Think first.")):
        \"\"\"Harmless words after the question.\"\"\"
        for number, phrase in enumerate(phrases, 1):
            yield str(number), subject.asking(lambda question: f"{question} {phrase}")

A Subject is valid until the next one is asked for. An attack that changes the model restores it in a `finally`. Its
keyword-only parameters are its settings. Where a task has nothing that the attack could work on, it raises
`Inapplicable` with the reason before it yields: its values are then null with that reason. The random state is seeded
with `subject.seed` before it begins.

The name of a variant has no comma and no colon. Variants `<kind>@<step>` with whole numbers as steps are the points of
a curve `<attack>:<kind>`, as relearning leaves one; the worst variant is taken over all of them.

Options of the decorator, the first two needed:

- `access`: `user` may only ask the model, `weights` owns its files;
- `version`: an integer, raised when the attack or a metric of its own changes;
- `metrics`: names of metrics that take the place of the task's, for an attack that leaves records of its own kind;
- `mean`: True where the mean over the variants says something beside the worst one (`<metric>,<attack>:mean`);
- `extra`: (module, extra), a library that the attack needs and the extra of this package that installs it.
"""
