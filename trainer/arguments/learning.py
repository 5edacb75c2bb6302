"""The options of the commands that learn: ``train`` and ``quantise``."""

from pathlib import Path

from gpq.engine.torch_architectures import DEFAULT_WIDTHS, EFFICIENTNETS, NETWORKS, TORCHVISION
from gpq.system import device as gpq_device
from trainer.arguments.values import (
    Commands,
    add_cache_gb,
    add_dataset,
    code_length,
    defaults,
    positive,
    seed,
    source,
)
from trainer.config import (
    BATCHES,
    BITS,
    FINE_RATE,
    FROZEN_STEPS,
    HELD_OUT,
    LAMBDAS,
    LEARNING_RATES,
    LOGITS,
    MODERN,
    PAPER,
    RECIPES,
    STEPS,
    VARIANTS,
    VIEWS,
)


def add_train(commands: Commands) -> None:
    labelled, unlabelled = ({name: BATCHES[name][kind] for name in RECIPES} for kind in (0, 1))
    lambda1, lambda2 = (
        {name: LAMBDAS[name][which] for name in (PAPER, MODERN)} for which in (0, 1)
    )
    train = commands.add_parser("train", help="learn a model and write its artifact")
    train.set_defaults(command="train")
    add = train.add_argument
    add(
        "--data",
        type=Path,
        required=True,
        help="folder with labeled/<class>/* and unlabeled/**, or a CSV or Parquet table",
    )
    add(
        "--out",
        type=Path,
        required=True,
        help="folder for the artifact, the checkpoint and the log",
    )
    add_dataset(train)
    add("--bits", type=int, choices=BITS, default=48, help="code length (%(default)s)")
    add(
        "--network",
        metavar="NAME",
        help=f"{', '.join(sorted(NETWORKS))}, or onnx:FILE for a frozen image encoder, such as "
        "CLIP's (that of --init; without it paper: vgg; modern: resnet32, or resnet64 from "
        "--size 64 on)",
    )
    for option, what in (("--mean", "mean"), ("--std", "standard deviation")):
        add(
            option,
            type=float,
            nargs=3,
            metavar=("R", "G", "B"),
            help=f"{what} of each channel that onnx:FILE was trained with, on the 0–1 scale",
        )
    add("--width", type=positive, help=f"channels of the first stage {defaults(DEFAULT_WIDTHS)}")
    add(
        "--size",
        type=positive,
        help="pixels a side of the square input (that of --init; without it 32; resnet64: 64; "
        "large networks: 224)",
    )
    add(
        "--recipe",
        choices=RECIPES,
        help="how to train (distilled for the last layer of a frozen network, else modern; for "
        "onnx:FILE and with --details, --teacher, --logits or --lambda1 and 2, too)",
    )
    add(
        "--details",
        type=int,
        help="number of last codebooks that learn details within classes (M - 8)",
    )
    add(
        "--variant", choices=VARIANTS, default="gpq", help="variant of --recipe paper (%(default)s)"
    )
    add("--lambda1", type=float, help=f"weight of L_cls {defaults(lambda1)}")
    add("--lambda2", type=float, help=f"weight of the entropy {defaults(lambda2)}")
    add(
        "--class-weight",
        type=float,
        help="weight of classes beside features in the similarity that --recipe distilled keeps; "
        "0.2 if many images are of kinds that no label names (1, or 2 for many classes)",
    )
    add(
        "--logits",
        choices=LOGITS,
        help=f"logits of the classifier ({LOGITS[0]})",
    )
    add(
        "--steps",
        type=positive,
        help=f"optimiser steps {defaults(STEPS)}; modern: {FROZEN_STEPS} for the last layer alone",
    )
    add("--batch-labelled", type=positive, help=f"labelled images per step {defaults(labelled)}")
    add(
        "--batch-unlabelled",
        type=positive,
        help=f"unlabelled images per step {defaults(unlabelled)}",
    )
    add(
        "--learning-rate",
        type=float,
        help=f"peak learning rate {defaults(LEARNING_RATES)}; {FINE_RATE} if layers of "
        "efficientnet-* learn, not only the last",
    )
    add("--device", choices=gpq_device.NAMES, default="auto", help="where to compute (%(default)s)")
    add("--seed", type=seed, default=0, help="seed of all random numbers (%(default)s)")
    add(
        "--held-out",
        type=float,
        metavar="SHARE",
        help=f"share of labelled images held out to find the best step {defaults(HELD_OUT)}",
    )
    add(
        "--init",
        type=Path,
        metavar="MODEL_DIR",
        help="artifact whose network the training starts from (models/photos, unless an option "
        "chooses the network, its size or its weights)",
    )
    add(
        "--teacher",
        type=Path,
        metavar="MODEL_DIR",
        help="artifact that predicts the labels of unlabelled images",
    )
    add(
        "--pretrained",
        action="store_true",
        help=f"start from ImageNet weights ({', '.join((*TORCHVISION, *EFFICIENTNETS))})",
    )
    add(
        "--freeze",
        metavar="all|STAGES|none",
        help="learn only the last layer, or only what follows the first STAGES of the network, on "
        "features that are computed once (all for efficientnet-*, else none)",
    )
    add(
        "--views",
        type=positive,
        help=f"views of each image that a frozen network sees {defaults(VIEWS)}",
    )
    add_cache_gb(train)
    add(
        "--compile",
        default="",
        metavar="BACKEND",
        help="back end of torch.compile, such as inductor",
    )
    add("--resume", action="store_true", help="continue from the checkpoint in --out")
    add("--overwrite", action="store_true", help="replace the run in --out")


def add_quantise(commands: Commands) -> None:
    codes = commands.add_parser(
        "quantise", help="learn codes for a published network, from images of many kinds"
    )
    codes.set_defaults(command="quantise")
    add = codes.add_argument
    add(
        "--data",
        action="append",
        required=True,
        metavar="DIR[@PIXELS]",
        help="folder of images; may be repeated. Thumbnails are best learnt from at fewer PIXELS "
        "a side than the network's own",
    )
    add("--out", type=Path, required=True, help="folder for the artifact")
    add(
        "--network",
        choices=sorted((*EFFICIENTNETS, *TORCHVISION)),
        default="efficientnet-lite0",
        help="network with published weights (%(default)s)",
    )
    add("--size", type=positive, help="pixels a side of images; default: the network's own")
    add("--bits", type=code_length, default=256, help="code length (%(default)s)")
    add(
        "--kinds",
        action="store_true",
        help="the folders within --data are kinds of images, which the codes tell apart",
    )
    add(
        "--most",
        type=positive,
        default=20_000,
        help="images of each folder to learn from, evenly spaced (%(default)s)",
    )
    add(
        "--source",
        action="append",
        default=[],
        type=source,
        metavar="NAME:LICENCE",
        help="where images or weights come from, which the model records; may be repeated",
    )
    add(
        "--examples",
        type=Path,
        metavar="DIR",
        help="images of which the model contains a few, to check the engines that run it; "
        "default: those of --data",
    )
    add("--seed", type=seed, default=0, help="seed of all random numbers (%(default)s)")
    add("--device", choices=gpq_device.NAMES, default="auto", help="where to compute (%(default)s)")
    add("--overwrite", action="store_true", help="replace the model in --out")
    add_cache_gb(codes)
