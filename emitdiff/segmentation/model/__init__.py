"""The networks of TextDiff: frozen features, words, attention between them, and the classifier."""
