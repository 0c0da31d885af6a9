"""Other tools' formats and commands: lm-eval, pyreft, published logs."""
