"""Items that agents remember: documents under a namespace and a key, found by filters, text and vectors."""
