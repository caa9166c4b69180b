"""Pictures: `panels` draws static ones, `explorers` draws those with a slider."""
