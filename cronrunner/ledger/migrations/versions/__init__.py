"""One module per version of the ledger's schema; none is changed once it was released."""
