"""Looking at a deployment, and saying in words what it means for sessions. `coatcheck doctor` shows what is found.

`run` finds out which kind of store a URL names. `probe` works the store as an application would; `redis` and `sqlite`
read what there is to know of each kind, and `redis_checks` judges it; `redis_access` keeps secrets out of the words.
Nothing here changes a deployment: the only thing written is one short-lived record, which is deleted again.
"""

from coatcheck.doctor.findings import Finding, Report, Status
from coatcheck.doctor.run import examine

__all__ = ["Finding", "Report", "Status", "examine"]
