"""Where cells are computed: in this process, in several of this machine, on a Ray cluster, or as a share of them.

Whatever the engine, cells, values, failures and tables are those of ``evaluation.execute``, which does the work in
every worker; the state is in the store, so that a lost worker costs the cells in its hands (docs/clusters.md).
"""

from robustbench_msa.engines.engine import Engine, compute
from robustbench_msa.engines.job import Rebuild
from robustbench_msa.engines.units import Shard

__all__ = ["Engine", "Rebuild", "Shard", "compute"]
