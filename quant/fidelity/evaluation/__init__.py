"""An evaluation: a study of whole prompt sets with what belongs around it, from cards and a cache to a document."""
