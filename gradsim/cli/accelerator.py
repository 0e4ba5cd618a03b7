"""Which accelerator JAX finds, before scripts compute for long: python -m gradsim.cli.accelerator [cuda13, …]"""

import sys
from collections.abc import Sequence

import jax

from gradsim.arguments import reason

KINDS = {"cuda12": "gpu", "cuda13": "gpu", "tpu": "tpu"}


def main(arguments: Sequence[str] | None = None) -> str:
    """A line about the devices of this kind, or of any.

    Exits with one line where there is none.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if len(given) > 1 or not KINDS.keys() >= set(given):
        sys.exit(f"error: accelerator: got {' '.join(given)}; pass one of: {', '.join(KINDS)}, or none for any")
    said = ""
    for platform in [KINDS[given[0]]] if given else dict.fromkeys(KINDS.values()):
        try:
            devices = jax.local_devices(backend=platform)
        except RuntimeError as error:
            said = f" ({reason(error)})"
            continue
        return f"found {len(devices)} x {devices[0].device_kind} ({platform})"
    one = jax.local_devices(backend="cpu")[0]
    sys.exit(
        f"error: {' '.join(given) or 'accelerator'}: JAX finds none here but the {one.platform}{said}; look for its "
        "driver, or leave out ACCELERATOR and PRESET=accelerator"
    )


if __name__ == "__main__":
    print(main())
