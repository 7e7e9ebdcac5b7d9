"""Signs and verifies with `c2pa-health-imaging` in a Python that has it: one JSON object a line in, one out.

    python c2pa_worker.py FOLDER

What is timed is what its commands `sign --out` and `verify --trust-cert` do to a file after they have started.
"""

import json
import resource
import sys
import time
from importlib import import_module, metadata
from pathlib import Path
from typing import Any


class Worker:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pydicom = import_module("pydicom")
        keys = import_module("c2pa_health_imaging.crypto.keys")
        self.signature = import_module("c2pa_health_imaging.dicom.signature")
        policy = import_module("c2pa_health_imaging.crypto.trust").TrustPolicy
        self.key, self.certificate = keys.generate_keypair("benchmark")
        self.policy = policy.from_certificates([self.certificate], require_trusted_signer=True)

    def sign(self, paths: list[str]) -> None:
        for number, path in enumerate(paths):
            dataset = self.pydicom.dcmread(path, force=True)
            signed = self.signature.sign_dataset(dataset, self.key, self.certificate)
            signed.save_as(str(self.folder / f"{number}.dcm"), enforce_file_format=True)

    def verify(self, paths: list[str]) -> None:
        for number in range(len(paths)):
            dataset = self.pydicom.dcmread(str(self.folder / f"{number}.dcm"), force=True)
            status = self.signature.verify_dataset(dataset, trust_policy=self.policy).status.value
            if status != "valid":
                raise ValueError(f"its own signature is {status}")


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measured(worker: Worker, question: dict[str, Any]) -> dict[str, Any]:
    wall, used = time.perf_counter(), cpu()
    try:
        getattr(worker, question["do"])(question["paths"])
    except Exception as error:  # noqa: BLE001 - another's code: whatever it raises is an answer
        return {"wrong": f"{type(error).__name__}: {error}"}
    return {"wall": time.perf_counter() - wall, "cpu": cpu() - used}


def main() -> None:
    try:
        worker = Worker(Path(sys.argv[1]))
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), flush=True)
        return
    print(json.dumps({"version": metadata.version("c2pa-health-imaging")}), flush=True)
    for line in sys.stdin:
        print(json.dumps(measured(worker, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
