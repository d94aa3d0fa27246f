"""The experiments of the papers, a row of results each run."""
