"""The errors that cross a process boundary. `code` is what an answer or a failed job carries; the tree:

ContractError
├── RecipeError          a recipe is malformed or contradicts itself
├── RegistryError        a published variant cannot be read or written
│   └── VariantExists    that name is taken, and a published variant never changes
├── StorageError         a file cannot be stored
│   ├── ImageStoreError      a picture
│   └── ReportStoreError     a report
├── StoreUnavailable     the broker does not answer, or its memory is full
├── AdmissionError       a job is not accepted
│   ├── QueueFull            as many jobs are open as the service admits
│   └── IdempotencyConflict  that Idempotency-Key came with another body before
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
    code = "queue-full"


class IdempotencyConflict(AdmissionError):
    code = "idempotency-key-reused"


class JobMissing(ContractError):
    code = "job-not-found"


class JobLost(JobMissing):
    code = "job-lost"
