"""Evaluation of a network on a whole split."""

from __future__ import annotations

import torch
from torch import Tensor

from kdsearch.config.trial import TrialConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.data.loader import Batches
from kdsearch.io.json_text import finite
from kdsearch.models.network import Network
from kdsearch.models.seg_output import upsampled_classes
from kdsearch.train.evaluation.confusion import ConfusionMatrix, follow_flow


@torch.no_grad()
def evaluate(network: Network, batches: Batches, info: DatasetInfo, config: TrialConfig) -> dict[str, float]:
    """mIoU over the whole split of `batches` as `val/miou`, `val/iou/<class>`, `val/pixel_accuracy`, over all ranks.

    With `data.consistency` also `val/temporal_consistency`: mIoU between the prediction of each frame and that of its
    next frame, moved back along the flow. Pixels that leave the frame and absent classes do not count. A metric of
    nothing, such as the IoU of an absent class, is left out.
    """
    network.eval()
    device = batches.device
    matrix, temporal = (ConfusionMatrix(info.num_classes, device) for _ in range(2))
    bf16 = config.train.precision == "bf16"

    def predict(image_bchw: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits_bkhw = network(image_bchw).logits
        return upsampled_classes(logits_bkhw, image_bchw.shape[-2:])

    network.detail_taps = False  # detail heads serve training alone
    for batch in batches.val():
        classes_bhw = predict(batch.image_bchw)
        matrix.update(classes_bhw, batch.label_bhw)
        if batch.next_image_bchw is not None:
            assert batch.flow_b2hw is not None
            temporal.update(classes_bhw, follow_flow(predict(batch.next_image_bchw), batch.flow_b2hw))
    network.detail_taps = True
    matrix.reduce()
    metrics = {"val/miou": matrix.miou(), "val/pixel_accuracy": matrix.pixel_accuracy()}
    if config.data.consistency:
        temporal.reduce()
        metrics["val/temporal_consistency"] = temporal.miou()
    metrics |= {f"val/iou/{name}": iou for name, iou in zip(info.classes, matrix.iou_k().tolist(), strict=True)}
    return finite(metrics)
