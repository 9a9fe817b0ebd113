"""Files of a workspace: tables (`warehouse.py`), written by rename (`atomic_write.py`), named by content (`digests.py`)."""
