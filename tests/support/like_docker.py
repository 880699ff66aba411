"""`python like_docker.py COMMAND ...` executes a command under the filter that Docker puts on a container by default.

Docker allows what is in a list; this refuses what is not in it, and also what older versions left out of it: looking at
other processes.
"""

from __future__ import annotations

import os
import sys

from without_resources import REFUSE, forbid

#: ptrace, process_vm_readv, process_vm_writev, kcmp, perf_event_open, bpf, userfaultfd, syslog, mount, umount2,
#: pivot_root, setns, unshare, open_by_handle_at, init_module, finit_module, delete_module, kexec_load, reboot, swapon,
#: swapoff, acct, settimeofday, quotactl, lookup_dcookie, add_key, request_key, keyctl, mbind, set_mempolicy,
#: move_pages, io_uring_setup, io_uring_enter, io_uring_register.
_REFUSED = {
    "x86_64": (
        (
            *(101, 310, 311, 312, 298, 321, 323, 103, 165, 166, 155, 308, 272, 304, 175, 313, 176, 246, 169, 167),
            *(168, 163, 164, 179, 212, 248, 249, 250, 237, 238, 279, 425, 426, 427),
        ),
        0xC000003E,
    ),
    "aarch64": (
        (
            *(117, 270, 271, 272, 241, 280, 282, 116, 40, 39, 41, 268, 97, 265, 105, 273, 106, 104, 142, 224),
            *(225, 89, 170, 60, 18, 217, 218, 219, 235, 237, 239, 425, 426, 427),
        ),
        0xC00000B7,
    ),
}

if __name__ == "__main__":
    forbid(_REFUSED, REFUSE)
    os.execv(sys.argv[1], sys.argv[1:])
