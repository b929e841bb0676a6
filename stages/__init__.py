"""One script a stage: read parameters, call the library, write outputs.

Threads that wait sleep instead of spinning: beside another busy process, spinning makes every training step a
hundred times slower. It must stand in the environment before torch is imported, and so it stands here.
"""

import logging
import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it recommends a kernel that would be fetched at run time
