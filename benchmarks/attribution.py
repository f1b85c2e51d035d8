"""Which words moved a language model: ablation word by word beside integrated gradients, on stays of a trained run.

    python benchmarks/attribution.py [profile] [run] [stays]

Prints for each method, averaged over the stays, how far the top DRG's logit falls without its five strongest words and
without five random ones, and the seconds for a stay. For integrated gradients, it also prints the completeness error:
how far the sum of the attributions is from the change of the logit between padding and text, as a share of that change.
"""

import sys
import time

import numpy as np
import pandas as pd
import torch
from captum.attr import LayerIntegratedGradients

from drgstudy import attribution, cohort, models
from drgstudy.flow import read_rows
from drgstudy.predictions import read_predictions
from drgstudy.study import Paths, progress

STEPS = 16


def integrated_gradients(model, text: str, label: int):
    """Scores of the tokens, with their places in the text, and the completeness error. The path starts at padding."""
    tokens = model.tokenizer(text, truncation=True, max_length=model.settings.max_tokens, return_offsets_mapping=True)
    batch = model.collate([{"input_ids": model.tokens([text])[0]}])
    ids, mask = (part.to(model.net.device) for part in batch.values())

    def logit(ids, mask):
        return model.net(input_ids=ids, attention_mask=mask)["logits"].float()[:, label]

    method = LayerIntegratedGradients(logit, model.net.get_input_embeddings())
    padding = torch.full_like(ids, model.tokenizer.pad_token_id)
    scores = method.attribute(
        ids, padding, additional_forward_args=(mask,), n_steps=STEPS, internal_batch_size=4
    ).float()
    with torch.no_grad():
        change = float(logit(ids, mask) - logit(padding, mask))
    per_token = scores.sum(-1)[0].tolist()
    places = [(start, end, score) for (start, end), score in zip(tokens.offset_mapping, per_token, strict=True)]
    return [place for place in places if place[1] > place[0]], abs(sum(per_token) - change) / abs(change)


def main(profile: str = "demo", run: str = "llama", stays: str = "6"):
    paths = Paths(profile)
    model, _ = models.load(paths.runs / run)
    predictions = read_predictions(paths.runs / run)
    chosen = np.random.default_rng(0).choice(len(predictions.truth), int(stays), replace=False)
    texts = read_rows(paths.stays, cohort.STAYS).set_index("stay_id")["text"][predictions.stay_ids[chosen]].tolist()
    rows = []
    for i, text in zip(chosen, progress(texts, desc="explaining"), strict=True):
        label = int(predictions.logits[i].argmax())
        start = time.perf_counter()
        pieces = attribution.explain(model, text, label).pieces
        middle = time.perf_counter()
        gradients, error = integrated_gradients(model, text, label)
        end = time.perf_counter()
        ablated = attribution.check(model, text, pieces, label)
        rows.append({"method": "ablation", "seconds": middle - start} | ablated)
        integrated = attribution.check(model, text, gradients, label)
        rows.append({"method": "integrated gradients", "seconds": end - middle, "error": error} | integrated)
    print(pd.DataFrame(rows).groupby("method").mean().round(2).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
