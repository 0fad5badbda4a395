"""Run by `test_devices.py`, alone and under torchrun: steps on given samples, then whole runs; results into a folder.

With `half` alone the one process sees half of the samples, which is what two would do that did not talk.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fitdiff.models.autoencoder import AutoencoderConfig
from fitdiff.models.denoiser import DenoiserConfig, TrainedWith
from fitdiff.models.discriminator import DiscriminatorConfig
from fitdiff.models.latent import LatentLayout
from fitdiff.models.recogniser import IdentityFeatures
from fitdiff.models.unet import UNetConfig
from fitdiff.training import train_diffusion as diffusion
from fitdiff.training.chart_crops import ChartFolder, CropBatch
from fitdiff.training.devices import Workers, start_workers
from fitdiff.training.diffusion_data import DiffusionData
from fitdiff.training.state import Budget
from fitdiff.training.train_autoencoder import AutoencoderTrainer, AutoencoderTrainingConfig
from fitdiff.training.train_diffusion import DiffusionSamples, DiffusionTrainer, DiffusionTrainingConfig

STEPS = 3
BATCH = 4
LAYOUT = LatentLayout(texture_size=8, identity=12, expression=3, light=1)
SHAPES = ((4, 8, 8), (4, 4, 4), (4, 2, 2))


def autoencoder_config() -> AutoencoderTrainingConfig:
    """Every loss and the codebook from the first step on."""
    model = AutoencoderConfig(
        chart_size=128,
        decoder_channels=(12, 8, 8, 8),
        decoder_blocks=(1, 1, 1),
        encoder_channels=(8, 8, 8, 8),
        encoder_blocks=1,
        codes=64,
    )
    return AutoencoderTrainingConfig(
        model=model,
        discriminator=DiscriminatorConfig(channels=(4, 4, 4)),
        budget=Budget(steps=STEPS),
        crop=64,
        batch=BATCH,
        warmup=0,
        quantise_after=0.0,
        perceptual_weight=0.1,
        perceptual_crops=BATCH,
        adversarial_weight=0.1,
        adversarial_after=0.0,
        moment_weight=1.0,
        bfloat16=False,
        num_threads=1,
        quiet=True,
    )


def diffusion_config() -> DiffusionTrainingConfig:
    unet = UNetConfig(
        base_channels=8,
        multipliers=(1, 2),
        attention_levels=(),
        condition_maps=tuple(shape[0] for shape in SHAPES),
        condition_embedding=6,
        condition_channels=8,
        vector_channels=8,
    )
    return DiffusionTrainingConfig(
        budget=Budget(steps=STEPS),
        model=DenoiserConfig(unet=unet, layout=LAYOUT, prior_components=20),
        batch=BATCH,
        warmup=0,
        bfloat16=False,
        num_threads=1,
        validation_photos=4,
        validation_steps=(200, 800),
        quiet=True,
    )


def diffusion_data() -> DiffusionData:
    generator = torch.Generator().manual_seed(0)
    photos = 80

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    hidden = normal(photos, 5)
    return DiffusionData(
        texture=(hidden @ normal(5, LAYOUT.texture) + normal(photos, LAYOUT.texture)).numpy(),
        map_index=np.arange(photos),
        vector=torch.tanh(hidden @ normal(5, LAYOUT.vector)).numpy(),
        maps=tuple((hidden @ normal(5, int(np.prod(s)))).view(1, photos, *s).half().numpy() for s in SHAPES),
        embedding=(hidden @ normal(5, 6))[None].numpy(),
        empty=IdentityFeatures(tuple(torch.zeros(1, *s) for s in SHAPES), torch.zeros(1, 6)),
        training=np.arange(10, photos),
        held_out=np.arange(10),
        trained_with=TrainedWith("synthetic", "a", "b", "c"),
    )


def part_of(workers: Workers, half: bool) -> slice:
    size = BATCH // 2 if half else BATCH // workers.count
    return slice(workers.rank * size, (workers.rank + 1) * size)


def autoencoder_steps(data: Path, workers: Workers, half: bool) -> AutoencoderTrainer:
    config = autoencoder_config()
    trainer = AutoencoderTrainer(
        config, ChartFolder(data), lambda a, b: (a - b).square().mean((1, 2, 3)), None, workers
    )
    trainer.begin()
    generator, own = torch.Generator().manual_seed(7), part_of(workers, half)

    def given() -> Iterator[tuple[CropBatch, Tensor]]:
        while True:
            batch = trainer.charts.crops(BATCH, 64, True, generator)
            noise = torch.randn(BATCH, 1, 8, 8, generator=generator) * 0.05
            yield CropBatch(batch.maps[own], batch.origin[own]), noise[own]

    batches = given()
    trainer.draw = lambda: next(batches)  # type: ignore[method-assign]
    for step in range(STEPS):
        trainer.step(step / STEPS)
        trainer.state.step += 1
    return trainer


def diffusion_steps(workers: Workers, half: bool) -> DiffusionTrainer:
    data, config = diffusion_data(), diffusion_config()
    trainer = DiffusionTrainer(config, data, torch.eye(15) * 0.01, None, workers)
    trainer.begin()
    whole = DiffusionTrainer(config, data, torch.eye(15) * 0.01)  # draws what one process would
    whole.begin()
    own = part_of(workers, half)

    def given() -> DiffusionSamples:
        samples = whole.draw()
        maps = tuple(m[own] for m in samples.features.maps)
        features = IdentityFeatures(maps, samples.features.embedding[own])
        return DiffusionSamples(samples.photos[own], features, samples.present[own], samples.t[own], samples.noise[own])

    trainer.draw = given  # type: ignore[method-assign]
    for step in range(STEPS):
        trainer.step(step / STEPS)
        trainer.state.step += 1
    return trainer


def fingerprint(module: nn.Module) -> str:
    sha = hashlib.sha256()
    for tensor in module.state_dict().values():
        sha.update(tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()


def whole_runs(workers: Workers, out: Path) -> dict[str, object]:
    """A run by the clock, then the same run resumed with a larger budget."""
    written: list[str] = []
    save_denoiser, save = diffusion.save_denoiser, torch.save

    def counted_checkpoint(path: Path, *arguments: object, **options: object) -> object:
        written.append(path.name)
        return save_denoiser(path, *arguments, **options)  # type: ignore[arg-type]

    def counted_state(document: object, target: Any, **options: Any) -> None:
        if isinstance(target, Path):  # not what processes send each other
            written.append(target.name.split(".")[0])
        save(document, target, **options)

    diffusion.save_denoiser, torch.save = counted_checkpoint, counted_state  # type: ignore[assignment]
    config = replace(diffusion_config(), budget=Budget(minutes=0.02), device="cpu")
    arguments = (diffusion_data(), torch.eye(15), out / "run")
    first = diffusion.train_diffusion(config, *arguments)
    config = replace(config, budget=Budget(steps=first.steps + 2))
    second = diffusion.train_diffusion(config, *arguments, resume=True)
    return {
        "steps": [first.steps, second.steps],
        "written": written,
        "ratio": second.validation["ratio"],
    }


def main() -> None:
    data, out, half = Path(sys.argv[1]), Path(sys.argv[2]), len(sys.argv) > 3
    torch.set_num_threads(1)
    workers = start_workers("cpu")
    result: dict[str, object] = {"rank": workers.rank, "count": workers.count}
    for name, trainer in (
        ("autoencoder", autoencoder_steps(data, workers, half)),
        ("diffusion", diffusion_steps(workers, half)),
    ):
        result[name] = fingerprint(trainer.model)
        with trainer.average.applied(trainer.model):
            result[f"{name} average"] = fingerprint(trainer.model)
        if workers.is_first:
            tensors = {k: v.float().contiguous().clone() for k, v in trainer.model.state_dict().items()}
            save_file(tensors, out / f"{name}.safetensors")
            if isinstance(trainer, AutoencoderTrainer):
                judge = {k: v.contiguous().clone() for k, v in trainer.objective.discriminator.state_dict().items()}
                save_file(judge, out / "judge.safetensors")
    if workers.count > 1:
        result |= whole_runs(workers, out)
    (out / f"rank{workers.rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
