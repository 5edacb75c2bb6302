"""The recipe ``modern``: GPQ with methods of semi-supervised learning published since 2020."""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.components import losses
from trainer.components.assignment import soft_assign
from trainer.components.model import GPQ
from trainer.components.muon import Muon, scale_free
from trainer.recipes.base import Recipe
from trainer.recipes.batches import Batch, balanced_rows
from trainer.recipes.confidence import Confidence


class Modern(Recipe):
    """The paper's losses with four additions.

    The optimiser is Muon for convolutions and AdamW for all else, with a cosine schedule. Images
    of rare classes come more often. The codewords of the codebooks that learn classes start at the
    prototypes, so that every class has its own.

    Teacher: an exponential moving average of the weights (Tarvainen & Valpola 2017) predicts the
    labels of unlabelled images, unless a finished model has predicted them (``teacher``). The
    artifact has the weights of the average.

    Consistency: the class predicted for a weak view is the label of the strong view (FixMatch,
    Sohn et al. 2020) in L_cls and in the N-pair loss, weighted by its certainty (``Confidence``).
    If images have several classes, the label is the predicted probabilities.

    Nested codes: both losses are means over the first 3, 6, 8, … codebooks, so that the first 12,
    24, 32, … bits are usable as codes.

    Details: the last ``config.details`` codebooks learn to find the other view of an image among
    all images of the batch. With classes alone, the images of a class would share few codes and
    have equal scores.
    """

    lambda_details = 0.2
    details_temperature = 0.1
    weight_decay = 0.05
    muon_rate = 8.0  # learning rate of convolutions, as a multiple of that of all else
    warm_up_steps = 100

    def begin(self) -> None:
        self.model.start_at_prototypes()
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        self.average_decay = min(0.9995, max(0.99, 1 - 10 / self.config.steps))
        self.confidence = Confidence(len(self.data.classes), self.device)
        self.multi_label = bool((self.data.labels.sum(dim=1) > 1).any())
        self.steps_done = 0
        self.average_step = torch.zeros((), device=self.device)  # share of the newest weights

    def labelled_rows(self) -> Tensor:
        return balanced_rows(self.data.labels)

    @property
    def trained(self) -> GPQ:
        return self.average

    def networks(self) -> list[nn.Module]:
        return [self.model.F, self.average.F]

    def optimiser(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        turned = scale_free(self.model.F)
        rest = [p for p in self.model.F.parameters() if not any(p is t for t in turned)]
        decayed = [p for p in rest if p.ndim > 1]
        free = [p for p in rest if p.ndim <= 1]
        rate = self.config.learning_rate
        groups = [
            {"params": turned, "orthogonal": True, "lr": self.muon_rate * rate},
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": [*free, self.model.Z, self.model.C], "weight_decay": 0.0},
        ]
        muon = Muon(groups, lr=rate, betas=(0.9, 0.99))
        return muon, torch.optim.lr_scheduler.LambdaLR(muon, self._rate)

    def _rate(self, step: int) -> float:
        warm = min(1.0, (step + 1) / self.warm_up_steps)
        return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.config.steps)))

    def draw(self) -> Batch:
        self.steps_done += 1
        decay = min(self.average_decay, self.steps_done / (self.steps_done + 10))
        self.average_step.fill_(1 - decay)
        return super().draw()

    def losses(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        model, known = self.model, batch.known
        pixels, labels, unlabelled = batch.labelled, batch.labels, batch.unlabelled
        everything = torch.cat([pixels, unlabelled])
        if known is not None:
            pseudo, certainty = known, torch.ones(len(known), device=self.device)
        if known is None or self.config.details:
            teacher_x = self._teacher_vectors(everything)
        if known is None:
            pseudo, certainty = self._pseudo_labels(teacher_x[len(pixels) :])

        half = len(pixels) // 2
        views = [
            self.views.weak(pixels[:half], self.view_generator),
            self.views.strong(everything[half:], self.view_generator),
        ]
        raw = self._features(model, torch.cat(views))
        x = model.class_part(model.sub_vectors(raw))
        reversed_ = model.sub_vectors(losses.reverse_gradient(raw[len(pixels) :]))

        both = torch.cat([labels, pseudo])
        weight = torch.cat([torch.ones(len(labels), device=self.device), certainty])
        similarity, target = losses.class_similarity(both), losses.class_target(both)
        q = soft_assign(x, model.class_codewords())
        prefixes = self.config.prefixes
        npair = losses.nested_npair(x, q, similarity, prefixes, weight)
        each = losses.classification(self._class_logits(x), target, averaged=False)
        classify = each[: len(labels)].mean() + (each * weight)[len(labels) :].mean()
        entropy = losses.entropy(self._class_logits(model.class_part(reversed_)), averaged=False)
        parts = {"npair": npair, "cls": classify, "entropy": entropy, "sure": certainty.mean()}
        total = npair + self.config.lambda1 * classify - self.config.lambda2 * entropy
        if self.config.details:
            parts["details"] = losses.two_views(
                model.detail_part(model.sub_vectors(raw)),
                model.detail_part(teacher_x),
                model.detail_codewords(),
                self.details_temperature,
            )
            total = total + self.lambda_details * parts["details"]
        return total, parts

    def _class_logits(self, x: Tensor) -> Tensor:
        """(B,M',d) -> logits (B,P,L), one row per prefix of codebooks if ``averaged``, else M'."""
        if self.config.averaged:
            return losses.nested_logits(x, self.model.C, self.config.prefixes)
        return self.model.class_logits(x)

    @torch.no_grad()
    def _teacher_vectors(self, pixels: Tensor) -> Tensor:
        """Returns the sub-vectors (B,M,d) of the average's features of a weak view."""
        raw = self._features(self.average, self.views.weak(pixels, self.view_generator))
        return self.average.sub_vectors(raw)

    @torch.no_grad()
    def _pseudo_labels(self, teacher_x: Tensor) -> tuple[Tensor, Tensor]:
        """Predicts labels (B,L) and weights (B,) from the average's sub-vectors (B,M,d)."""
        x = self.average.class_part(teacher_x)
        logits = losses.nested_logits(x, self.average.C, (x.shape[1],))[:, 0]
        likely = torch.softmax(logits, dim=-1)
        classes, certainty = self.confidence(likely)
        labels = likely if self.multi_label else functional.one_hot(classes, likely.shape[1])
        return labels, certainty

    @torch.no_grad()
    def after_step(self) -> None:
        for averaged, current in zip(_floats(self.average), _floats(self.model), strict=True):
            averaged.lerp_(current, self.average_step)

    def state(self) -> dict[str, object]:
        more = {
            "average": self.average.state_dict(),
            "confidence": self.confidence.state(),
            "steps_done": torch.tensor(self.steps_done),
        }
        return {**super().state(), **more}

    def load_state(self, state: dict[str, Tensor]) -> None:
        super().load_state(state)
        self.average.load_state_dict(state["average"])  # type: ignore[arg-type]
        self.confidence.load_state(state["confidence"])
        self.steps_done = int(state["steps_done"])


def _floats(model: nn.Module) -> list[Tensor]:
    return [t for t in model.state_dict().values() if t.is_floating_point()]
