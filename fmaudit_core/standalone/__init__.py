"""Functions without a workspace: assess a file of predictions, compare two audits."""
