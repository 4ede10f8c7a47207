"""What torch says of the one CUDA device that this process sees, as a line of JSON.

`python -m harness.execution.gpu_probe` computes a sum there: nothing else shows that it can.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

from harness.errors import one_line


def look() -> dict[str, Any]:
    """torch's version, the CUDA and kernels that it is built for, and of the device its name,
    compute capability, bytes of memory in all and free; `fault` where it does not compute."""
    import torch

    found: dict[str, Any] = {"torch": torch.__version__, "cuda": torch.version.cuda}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of an old card; it is judged in one line
            torch.cuda.init()
            found["kernels"] = torch.cuda.get_arch_list()
            found["name"] = torch.cuda.get_device_name(0)
            found["capability"] = list(torch.cuda.get_device_capability(0))
            found["bf16"] = torch.cuda.is_bf16_supported(including_emulation=False)
            found["free"], found["total"] = torch.cuda.mem_get_info(0)
            torch.ones(2, device="cuda").sum().item()
    except Exception as fault:  # torch raises kinds of its own, and those of the driver
        found["fault"] = one_line(fault)[:300] or type(fault).__name__
    return found


if __name__ == "__main__":
    print(json.dumps(look()))
    sys.exit(0)
