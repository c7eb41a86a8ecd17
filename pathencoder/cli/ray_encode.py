"""`encode --ray`: each worker has the same encoders as the driver, and does jobs as it would."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pathencoder.cli.encode_job import EncodeRun
from pathencoder.cli.job import Job
from pathencoder.cli.jobs import Ended
from pathencoder.cli.meter import Meter
from pathencoder.cli.ray_options import RayOptions
from pathencoder.cli.ray_run import run_on_ray
from pathencoder.cli.remote_slides import staging_of
from pathencoder.cluster.session import Plan, Share
from pathencoder.errors import ChecksumError, ConfigError, OfflineError
from pathencoder.features.job import Outcome
from pathencoder.remote.staging import Scratch
from pathencoder.walk import expanded

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder
    from pathencoder.spec import EncoderSpec


def encode_on_ray(
    run: EncodeRun, jobs: Sequence[Job], ray: RayOptions, scratch: Scratch, *, debug: bool
) -> Ended:
    """Encode on the workers of a cluster.

    Args:
        run: As for this process; its encoders are loaded again in each worker.
        jobs: The jobs.
        ray: Where, on what, and the encoders as the user named them.
        scratch: The budget of each machine, which its workers share evenly.
        debug: Show what workers print.

    Returns:
        The outcomes of all jobs.

    Raises:
        PathEncoderError: No worker could start.
    """
    refs = [
        EncoderRef.of(name, ray.revision, encoder)
        for name, encoder in zip(ray.names or (None,), run.encoders, strict=True)
    ]
    prepare = _OnWorker(replace(run, encoders=()), refs, scratch)
    of_rows = [row.tissue for row in run.rows.values() if row is not None and row.tissue]
    files = [*run.beside.tissue.values(), *run.beside.coords.values(), *of_rows]
    return run_on_ray(jobs, prepare, ray, out=run.out, files=files, debug=debug)


@dataclass(frozen=True)
class _OnWorker:
    """Prepares a worker: its own encoders and its own staging, else the same run."""

    run: EncodeRun
    encoders: Sequence[EncoderRef]
    scratch: Scratch

    def __call__(self, share: Share, plan: Plan) -> Callable[[Job, Meter], list[Outcome]]:
        threads = self.run.settings.workers or max(share.cpus, 1)
        settings = replace(self.run.settings, workers=threads)
        encoders = [ref.load(share) for ref in self.encoders]
        run = replace(self.run, encoders=encoders, settings=settings)
        scratch = replace(self.scratch, gb=self.scratch.gb / plan.on_one_node)

        def encode(job: Job, meter: Meter) -> list[Outcome]:
            with staging_of([job], scratch, run.needs) as staging:
                return replace(run, staging=staging).encode(job, meter)

        return encode


@dataclass(frozen=True)
class EncoderRef:
    """An encoder that another process loads.

    Attributes:
        name: Name, folder or owner/repo; None: the default.
        revision: On the Hub.
        weights: The sha256 that stands for the weights that the driver computes with; None where
            the commit on the Hub names them.
        spec: Of the driver's encoder.
    """

    name: str | None
    revision: str | None
    weights: str | None
    spec: EncoderSpec

    @classmethod
    def of(cls, name: str | None, revision: str | None, encoder: Encoder) -> EncoderRef:
        """The reference to an encoder that was loaded by this name.

        Args:
            name: As the user gave it.
            revision: As the user gave it.
            encoder: What was loaded. Of a repository, the commit that it came from counts.
        """
        from pathencoder.pretrained import catalogue
        from pathencoder.runtimes.unchanged import sha256_in_use

        folder = encoder.origin.folder if encoder.origin else None
        if name is not None and folder is not None and folder == expanded(name):
            name = os.path.abspath(folder)
        elif name is not None and catalogue.find(name) is None and encoder.spec.revision:
            name, revision = name.partition("@")[0], encoder.spec.revision
        weights = sha256_in_use(encoder.network, encoder.origin)
        return cls(name, revision, weights, encoder.spec)

    def load(self, share: Share) -> Encoder:
        """Load the encoder in a worker, on its GPU or on its cores.

        What is on the machine is used without asking the Hub.

        Raises:
            ChecksumError: The weights are not those of the driver.
            ConfigError: The description of the encoder (preprocessing, readout) is another one.
            PathEncoderError: As for `load_encoder`.
        """
        import torch

        from pathencoder.encoder import load_encoder

        torch.set_num_threads(max(share.cpus, 1))
        device = "cuda" if share.gpus else "cpu"
        try:
            encoder = load_encoder(
                self.name, revision=self.revision, device=device, local_files_only=True
            )
        except OfflineError:
            encoder = load_encoder(self.name, revision=self.revision, device=device)
        self._check(encoder)
        return encoder

    def _check(self, encoder: Encoder) -> None:
        from pathencoder.runtimes.unchanged import sha256_in_use

        name = self.name or encoder.spec.name
        weights = sha256_in_use(encoder.network, encoder.origin)
        if weights != self.weights:
            raise ChecksumError(
                f"{platform.node()} has other weights for {name} (sha256 {weights}) than this"
                f" machine ({self.weights}): remove them there, or name a --revision"
            )
        mine, theirs = dataclasses.asdict(self.spec), dataclasses.asdict(encoder.spec)
        if different := [field for field in mine if mine[field] != theirs[field]]:
            raise ConfigError(
                f"{platform.node()} describes {name} in another way than this machine"
                f" ({', '.join(different)}): its config.json is another one, or another version of"
                " pathencoder is installed there. Copy the folder, or install the same version"
            )
