"""How the embedded models were made: one file per model, and the loop they share."""
