"""What the site has beside the pages of docs/: pages made from docstrings, schemas and files of the repository."""
