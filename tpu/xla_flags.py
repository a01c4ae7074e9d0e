"""Named sets of XLA flags, to be exported before Python starts: ``export XLA_FLAGS="$(python tpu/xla_flags.py gpu)"``.

Every set is a starting point to measure from, not a promise: flags come and go with XLA's versions, and an unknown one
ends the program with a message.
"""

import sys

SETS = {
    "none": (),
    # matrix products by Triton where it is faster than cuBLAS; MuJoCo MJX's documentation recommends it
    "gpu": ("--xla_gpu_triton_gemm_any=true",),
    # as above, and communication hidden behind computation where several GPUs train one model
    "gpu-many": ("--xla_gpu_triton_gemm_any=true", "--xla_gpu_enable_latency_hiding_scheduler=true"),
    # eight devices on a CPU, for trying out what is spread
    "cpu8": ("--xla_force_host_platform_device_count=8",),
    # what the compiler made, for reading
    "dump": ("--xla_dump_to=xla_dump", "--xla_dump_hlo_as_text=true"),
}


def main() -> int:
    """Command line."""
    if len(sys.argv) != 2 or sys.argv[1] not in SETS:
        print(f"usage: xla_flags.py {'|'.join(SETS)}", file=sys.stderr)
        return 2
    print(" ".join(SETS[sys.argv[1]]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
