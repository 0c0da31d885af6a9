"""Results -> leaderboards: Markdown, CSV, SVG and one HTML page. The same files always give the same bytes. No torch.

`tree` reads the results and how far each was verified, `boards` makes rows of them and ranks them. `page` (Markdown),
`sheet` (CSV), `scatter` (SVG) and `site` (HTML, with `opened` rows) write them down in the `words` that all share, and
`files` puts the pages in their folder. `check` is what CI runs; it recomputes every number from the records.
"""
