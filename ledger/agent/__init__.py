"""The signing agent beside a modality: receives, keeps, forwards and seals images. docs/agent.md has the order of its steps.

`receiver`, `folders` and `orthanc` put what arrives into the `spool`; `forwarding` sends it on, and `sealing` seals it, each at
its own pace and after any crash from where it was. Nothing here waits for the ledger.
"""
