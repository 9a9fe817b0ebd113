"""Documents next to the page: audit.json, cards, checklists, the comparison of two audits."""
