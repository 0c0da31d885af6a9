"""Results -> leaderboards: Markdown, CSV, SVG and one HTML page. The same files always give the same bytes. No torch.

`tree` reads the results and how far each was verified, `boards` makes rows of them and ranks them, `page` (Markdown),
`sheet` (CSV), `scatter` (SVG) and `site` (HTML) write them down, `files` puts the pages in their folder, and `check` is
what CI runs.
"""
