"""How long a run trains and how often it reports."""

import dataclasses

import jax

from jaxgan import keys
from jaxgan.parallel import Shard, check_devices, check_shard

_INTEGERS = 2**31  # what devices count in


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long to train and how often to report.

    Attributes:
        steps: how many in all.
        batch_size: samples in a batch, over all devices.
        batches_per_step: batches that a step consumes; of a GAN the critic's updates in a step, which
            ends with one of the generator.
        seed: of everything random.
        log_every: steps between two log points.
        sample_every: steps between two looks at samples; 0 for one at the end only.
        eval_every: steps between two evaluations, the last one at the end; 0 for none.
        checkpoint_every: steps between two checkpoints; 0 for one at the end only.
        keep: how many of the latest checkpoints to keep.
        best_metric: None, or the metric whose lowest value marks the checkpoint to keep as well; with
            evaluations there is a checkpoint at each of them.
        best_is_highest: whether it is its highest value instead.
        devices: how many devices to use; 0 for all. On several processes it is all of theirs.
        shard: "state" to have parameters, moments and averages spread over the devices, those of one
            process; None for each device to hold all of them.
        on_nan: what to do when training diverges: "stop", or "rollback" to go on from the newest
            checkpoint with other random numbers, at most three times in a run.
        max_hours: stop after so long, with a checkpoint; 0 for no limit.
        profile: steps to trace after the first, which compiles; 0 for none.
        n_critic: what `batches_per_step` is called of a GAN; it is kept there.
    """

    steps: int
    batch_size: int = 64
    batches_per_step: int = 1
    seed: int = 0
    log_every: int = 100
    sample_every: int = 1000
    eval_every: int = 0
    checkpoint_every: int = 1000
    keep: int = 3
    best_metric: str | None = None
    best_is_highest: bool = False
    devices: int = 0
    on_nan: str = "stop"
    max_hours: float = 0.0
    profile: int = 0
    shard: Shard | None = None
    n_critic: dataclasses.InitVar[int | None] = None

    def __post_init__(self, n_critic: int | None):
        if n_critic is not None:
            if self.batches_per_step != 1:
                raise ValueError(f"n_critic is {n_critic} and batches_per_step {self.batches_per_step}, "
                                 "its other name: give one of the two")
            object.__setattr__(self, "batches_per_step", n_critic)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type in (int, "int") and (isinstance(value, bool) or not isinstance(value, int)):
                raise ValueError(f"{field.name} must be a whole number; got {value!r}")
            if field.type in (int, "int") and value >= _INTEGERS and field.name != "seed":
                raise ValueError(f"{field.name} must be below 2**31; got {value}")
        keys.check_seed(self.seed)
        for name in ("steps", "batch_size", "batches_per_step", "log_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        for name in ("sample_every", "eval_every", "checkpoint_every", "devices", "max_hours",
                     "profile"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative; got {getattr(self, name)}")
        if self.on_nan not in ("stop", "rollback"):
            raise ValueError(f"on_nan must be stop or rollback; got {self.on_nan!r}")
        check_devices()
        available = jax.device_count()
        if jax.process_count() > 1 and self.devices not in (0, available):
            raise ValueError(f"devices is {self.devices}, but {jax.process_count()} processes use all "
                             f"of their {available}: leave it out")
        if self.devices > available:
            raise ValueError(f"devices is {self.devices}, but there are only {available}")
        check_shard(self.shard, jax.devices())
        if self.batch_size % (self.devices or available):
            raise ValueError(f"batch_size {self.batch_size} does not divide over "
                             f"{self.devices or available} devices: choose a multiple, or --devices 1")

    def next_stop(self, step: int) -> int:
        """The first step after `step` at which there is something to do."""
        periods = (self.log_every, self.sample_every, self.eval_every, self.checkpoint_every)
        return min([self.steps, *(step - step % period + period for period in periods if period)])

    def is_due(self, period: int, step: int) -> bool:
        """Whether something that happens every `period` steps, and at the end, happens at `step`."""
        return step == self.steps or (period > 0 and step % period == 0)

    def is_evaluating(self, step: int) -> bool:
        """Whether there is an evaluation at `step`."""
        return self.eval_every > 0 and self.is_due(self.eval_every, step)
