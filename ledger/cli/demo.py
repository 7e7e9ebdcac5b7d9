"""`scanseal demo`: the product's own commands, on real images, from an empty folder to nine verdicts."""

from __future__ import annotations

import shutil
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pydicom
import typer
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless, RLELossless

from ledger.cli.output import OUT, plain, styled, table
from ledger.core.errors import FixInput, ScanSealError
from ledger.wiring import assembly

MARK = "This folder was made by `scanseal demo`, which may delete it.\n"
CT_SCANNER = ("CT_small.dcm", "MR_small.dcm", "examples_jpeg2k.dcm", "liver_1frame.dcm", "MR_small_RLE.dcm")
X_RAY = ("examples_rgb_color.dcm", "examples_palette.dcm", "JPEG-lossy.dcm", "MR_small_jpeg_ls_lossless.dcm")
RADIOGRAPHS = ("chest_cr_jpeg_baseline.dcm", "wg04/RG3_JLSL.dcm")
NEVER_SEALED = "examples_overlay.dcm"
STOLEN = "SC_rgb_jpeg_dcmd.dcm"


class Demo:
    """One run of the demo in its own folder, which is kept."""

    def __init__(self, folder: Path, images: Path | None, stack: ExitStack) -> None:
        self._folder, self._images, self._stack = folder, images, stack
        self._site = folder / "hospital"
        self._began = time.monotonic()

    def run(self) -> None:
        self._start_afresh()
        self._say("A hospital sets up a site, a local chain and two devices.")
        port = _free_port()
        name = ["--name", "Demo Hospital", "--rpc", f"http://127.0.0.1:{port}", "--keep-passphrase"]
        self._scanseal("init", str(self._site), *name)
        self._at_site("devnet", "up")
        self._at_site("deploy")
        self._enrol("ct1", "secp256k1", "Acme", "CT 3000", "4711", "CT1")
        self._enrol("xr1", "p256", "Acme", "XR 20", "0815", "XR1")
        self._enrol("gateway", "p256", "Acme", "Gateway", "7", "GW", "--roles", "transform,hold")
        self._enrol("lab", "p256", "Acme", "Lab", "9", "LAB", "--roles", "generate")
        self._say("Both devices seal what they make: real images of several modalities and transfer syntaxes.")
        self._copy(CT_SCANNER, "made/ct1")
        self._copy(X_RAY, "made/xr1")
        self._copy_shared(RADIOGRAPHS, "made/xr1")
        self._at_site("seal", str(self._folder / "made/ct1"), "--device", "ct1")
        self._at_site("seal", str(self._folder / "made/xr1"), "--device", "xr1")
        self._say("The gateway de-identifies two images with a receipt, and the lab declares a generated image for what it is.")
        deidentified = ["--profile", "ps3.15-basic", "--patient-id", "S01", "--device", "gateway"]
        for image in ("CT_small.dcm", "examples_jpeg2k.dcm"):
            target = str(self._folder / "received/8-de-identified" / image)
            self._at_site("derive", str(self._folder / "made/ct1" / image), target, *deidentified)
        self._make_synthetic()
        generator = ["--synthetic", "--generator", "a model of noise"]
        self._at_site("seal", str(self._folder / "received/9-generated"), *generator, "--device", "lab")
        self._at_site("anchor")
        self._say("A thief has the key of xr1 and seals an image with it. The hospital notices and revokes the key.")
        self._copy((STOLEN,), "stolen")
        self._at_site("seal", str(self._folder / "stolen"), "--device", "xr1")
        self._at_site("device", "revoke", "xr1", "--compromised-since", "now")
        self._at_site("anchor")
        self._say("An auditor receives copies: some intact, some transcoded without loss, some not what they were.")
        self._make_received()
        received = self._folder / "received"
        self._at_site("verify", str(received), expect=1)
        self._show_table(received)
        self._say("The same without any network: evidence bundle, trust file, images. This is what works in twelve years.")
        bundle = str(self._folder / "evidence.seal.json")
        self._at_site("bundle", "export", "-o", bundle)
        trust = str(self._site / "trust.toml")
        self._scanseal("verify", str(received / "1-intact"), "--bundle", bundle, "--trust", trust, "--offline")
        self._say(
            f"Done in {time.monotonic() - self._began:.0f} s. Everything is kept in {self._folder}; the chain goes on running."
        )
        here = _shown(self._folder)
        scanseal = "scanseal" if shutil.which("scanseal") else _shown(Path(sys.argv[0]))
        OUT.print("Try next:")
        OUT.print(f"  {scanseal} explain {here}/received/3-edited/CT_small.dcm --site {here}/hospital")
        OUT.print(f"  {scanseal} inspect {here}/made/ct1/CT_small.dcm")
        OUT.print(f"  {scanseal} devnet down --site {here}/hospital")

    def _show_table(self, received: Path) -> None:
        """What was done to the images beside what verification says of them."""
        shown = table("what happened to it", "image", "verdict", "why")
        with assembly.verifier(self._site, None, [], offline=True) as verifier:
            for result in verifier.verify(assembly.images([str(received)])):
                path, verdict = Path(result.path), result.verdict
                what = path.parent.name.partition("-")[2].replace("-", " ")
                why = "" if verdict.exit_code == 0 else plain(verdict.reasons[0])
                shown.add_row(what, path.name, styled(verdict.token), why)
        OUT.print(shown)

    def _start_afresh(self) -> None:
        mark = self._folder / "DEMO"
        if self._folder.exists() and any(self._folder.iterdir()):
            if not mark.is_file() or mark.read_text() != MARK:
                raise FixInput(f"{self._folder} is not empty and no demo's: name another --folder")
            if (self._site / "site.toml").exists():
                try:
                    assembly.devnet_down(self._site)
                except ScanSealError:
                    OUT.print("the last demo's chain was not running")
            shutil.rmtree(self._folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        mark.write_text(MARK)

    def _enrol(self, name: str, curve: str, manufacturer: str, model: str, serial: str, ae_title: str, *roles: str) -> None:
        device = ["--manufacturer", manufacturer, "--model", model, "--serial", serial, "--ae", ae_title, "--curve", curve]
        self._at_site("device", "request", name, *device)
        self._at_site("device", "approve", name, *(roles or ("--seals-everything-since", "now")))

    def _make_synthetic(self) -> None:
        """An image that no device made."""
        dataset = pydicom.dcmread(self._folder / "made/ct1/MR_small.dcm")
        dataset.PatientName = dataset.PatientID = "SYNTHETIC"
        dataset.SOPInstanceUID = f"{dataset.SOPInstanceUID}.9"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        noise = np.random.default_rng(7).normal(400, 120, dataset.pixel_array.shape)
        dataset.PixelData = noise.clip(0, 2000).astype(dataset.pixel_array.dtype).tobytes()
        _save(dataset, self._folder / "received/9-generated/noise.dcm")

    def _make_received(self) -> None:
        """Copies of the sealed images as an auditor may get them, one folder for each kind."""
        made, received = self._folder / "made", self._folder / "received"
        for name in ("CT_small.dcm", "MR_small.dcm", "examples_jpeg2k.dcm"):
            _copy_to(made / "ct1" / name, received / "1-intact")
        _copy_to(made / "xr1" / "JPEG-lossy.dcm", received / "1-intact")
        for name, syntax in (("CT_small.dcm", RLELossless), ("MR_small.dcm", JPEGLSLossless)):
            dataset = pydicom.dcmread(made / "ct1" / name)
            dataset.compress(syntax, generate_instance_uid=False)
            _save(dataset, received / "2-transcoded" / name)
        self._copy_shared((RADIOGRAPHS[0],), "received/1-intact")
        dataset = pydicom.dcmread(made / "ct1" / "examples_jpeg2k.dcm")
        dataset.decompress(generate_instance_uid=False)
        _save(dataset, received / "2-transcoded" / "examples_jpeg2k.dcm")
        _save(_with_lesion(pydicom.dcmread(made / "ct1" / "CT_small.dcm")), received / "3-edited" / "CT_small.dcm")
        dataset = pydicom.dcmread(made / "ct1" / "MR_small.dcm")
        dataset.PatientID, dataset.PatientName = "SOMEBODY-ELSE", "Somebody^Else"
        _save(dataset, received / "4-swapped-patient" / "MR_small.dcm")
        self._copy((NEVER_SEALED,), "received/5-never-registered")
        _copy_to(self._folder / "stolen" / STOLEN, received / "6-revoked-key")
        dataset = pydicom.dcmread(made / "ct1" / "liver_1frame.dcm")
        dataset.Manufacturer, dataset.ManufacturerModelName, dataset.DeviceSerialNumber = "Acme", "CT 3000", "4711"
        dataset.SOPInstanceUID = f"{dataset.SOPInstanceUID}.1"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.AcquisitionDateTime = time.strftime("%Y%m%d", time.gmtime(time.time() + 2 * 86400))
        dataset.PixelData = bytes(len(dataset.PixelData))
        _save(dataset, received / "7-evidence-stripped" / "liver_1frame.dcm")

    def _copy(self, names: tuple[str, ...], to: str) -> None:
        for name in names:
            source = get_testdata_file(name, download=False)
            if source is None:
                raise FixInput(f"pydicom's test file {name} is missing: install pydicom from its wheel")
            _copy_to(Path(str(source)), self._folder / to)

    def _shared(self, name: str) -> Path | None:
        """A real radiograph of the images folder, if there is one."""
        path = self._images / "dicom" / name if self._images else None
        return path if path is not None and path.is_file() else None

    def _copy_shared(self, names: tuple[str, ...], to: str) -> None:
        for source in filter(None, map(self._shared, names)):
            _copy_to(source, self._folder / to)

    def _at_site(self, *arguments: str, expect: int = 0) -> None:
        self._scanseal(*arguments, "--site", str(self._site), expect=expect)

    def _scanseal(self, *arguments: str, expect: int = 0) -> None:
        """Runs one command as a user would, in this process. Raises what it raises; another exit code is an error."""
        from ledger.cli.app import app

        OUT.print(f"[bold cyan]$ scanseal {plain(' '.join(_quoted(part) for part in arguments))}[/bold cyan]")
        code = app(list(arguments), standalone_mode=False) or 0
        if code != expect:
            raise typer.Exit(code)
        if expect:
            OUT.print(f"[dim]exit code {code}[/dim]")

    def _say(self, text: str) -> None:
        OUT.print(f"\n[bold]{text}[/bold]")
        sys.stdout.flush()


def _quoted(part: str) -> str:
    return f'"{part}"' if " " in part else _shown(Path(part)) if "/" in part and "://" not in part else part


def _shown(path: Path) -> str:
    """A path as short as it can be typed from here."""
    here = Path.cwd()
    return str(path.resolve().relative_to(here)) if path.resolve().is_relative_to(here) else str(path)


def _copy_to(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, folder / source.name)


def _save(dataset: Dataset, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path)


def _with_lesion(dataset: Dataset) -> Dataset:
    """A bright, soft-edged spot where there was none."""
    pixels = dataset.pixel_array.copy()
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    distance = np.hypot(y - pixels.shape[0] * 0.42, x - pixels.shape[1] * 0.36)
    spot = 600 * np.clip(1 - distance / 6, 0, 1)
    dataset.PixelData = (pixels + spot).astype(pixels.dtype).tobytes()
    return dataset


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
