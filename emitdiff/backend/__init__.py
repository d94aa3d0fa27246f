"""What the page and its endpoints call: plain functions over weights, datasets and jobs."""
