"""Index of the files of an archive: every file below a folder, with the study and series it belongs to, or why to none."""
