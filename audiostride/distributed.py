"""Several processes that train or predict together: which one this is, and what they add up."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# Where launchers say which of all processes this is: torchrun, then slurm's srun.
RANK_VARIABLES = ("RANK", "SLURM_PROCID")


@dataclass(frozen=True)
class Processes:
    """The processes of a job, one per device.

    Each has a number, its rank; the first one (rank 0) writes files and says what happens. Sums are taken over all of
    them once Fabric has connected them.
    """

    rank: int = 0
    """Which one this is."""
    count: int = 1
    """How many there are."""

    @classmethod
    def of_environment(cls, devices: int, n_nodes: int) -> "Processes":
        """As the launcher of this process says: torchrun, srun, or Fabric on each node.

        Args:
            devices: Processes on each node.
            n_nodes: Machines.
        """
        count = devices * n_nodes
        if count == 1:
            return cls()
        for name in RANK_VARIABLES:
            if name in os.environ:
                return cls(int(os.environ[name]), count)
        node = int(os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", 0)))
        return cls(node * devices + int(os.environ.get("LOCAL_RANK", 0)), count)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and says what happens."""
        return self.rank == 0

    def sum(self, values: "Tensor") -> "Tensor":
        """The sum of all processes' `values`, in every one of them."""
        if self.count == 1:
            return values
        import torch.distributed as dist

        # NCCL adds up what is on GPUs, gloo what is in memory.
        summed = values.to("cuda" if dist.get_backend() == "nccl" else "cpu", copy=True)
        dist.all_reduce(summed)
        return summed.to(values.device)
