"""Results -> leaderboards: Markdown, CSV, SVG and one HTML page. The same files always give the same bytes. No torch.

`tree` reads the results and how far each was verified (`marks`). `filings` keeps what boards show of them, `cells` are
means over runs, `ranking` is the rule, and `build` makes `boards` of it all. `markdown`, `sheet` (CSV), `scatter` (SVG)
and `site` (HTML, with `opened` rows) write those down in the `words` that all share; `pages` puts them in their folder.

`recompute` makes a result's numbers again from records, and `compare` holds them against the file's: for `check`, which
CI runs, and for `verify`, which reads a `bundle` as `submit` makes it.
"""
