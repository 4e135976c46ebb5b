"""The errors that cross a process boundary. `code` is what an answer or a failed job carries; the tree:

ContractError
├── RecipeError          a recipe is malformed or contradicts itself
├── RegistryError        a published variant cannot be read or written
│   └── VariantExists    that name is taken, and a published variant never changes
├── StorageError         a file cannot be stored
│   ├── ImageStoreError      a picture
│   └── ReportStoreError     a report
├── StoreUnavailable     the broker does not answer, or refuses
├── AdmissionError       a job is not accepted
│   ├── QueueFull            as many jobs of that queue are open as the service admits
│   ├── StoreFull            the broker's memory is nearly full: what is left is for jobs that were accepted
│   └── IdempotencyConflict  that Idempotency-Key came with another body before
├── RecordUnreadable     a job's record is of another release
└── JobMissing           no such job
    └── JobLost          the job's data set is gone: it was accepted by a store that has been emptied since
"""

from __future__ import annotations


class ContractError(Exception):
    """Base of all; the message is for the user."""

    code = "internal"


class RecipeError(ContractError):
    code = "invalid-recipe"


class RegistryError(ContractError):
    code = "variant-unusable"


class VariantExists(RegistryError):
    code = "variant-exists"


class StorageError(ContractError):
    code = "storage-unusable"

    def __init__(self, message: str, *, full: bool = False) -> None:
        super().__init__(message)
        if full:
            self.code = "storage-full"


class ImageStoreError(StorageError):
    pass


class ReportStoreError(StorageError):
    pass


class StoreUnavailable(ContractError):
    code = "broker-unavailable"


class AdmissionError(ContractError):
    code = "not-admitted"


class QueueFull(AdmissionError):
    """`retry_after`: seconds in which a place is free, as far as the queue's pace so far tells."""

    code = "queue-full"

    def __init__(self, message: str, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StoreFull(AdmissionError):
    code = "broker-full"


class IdempotencyConflict(AdmissionError):
    code = "idempotency-key-reused"


class RecordUnreadable(ContractError):
    """`job` and `attempt` say whose record it is."""

    code = "unknown-version"

    def __init__(self, job: str, attempt: int, reason: str) -> None:
        super().__init__(f"job {job} {reason}")
        self.job = job
        self.attempt = attempt


class JobMissing(ContractError):
    code = "job-not-found"


class JobLost(JobMissing):
    code = "job-lost"
