"""A model of two modules that has its parts where transformers' models have them."""

from torch import nn


class TwoPartModel(nn.ModuleDict):
    """A vision tower and a language model, found as in a model of transformers."""

    base_model = None

    def get_decoder(self) -> nn.Module:
        return self["language_model"]

    def get_encoder(self, modality: str) -> nn.Module:
        return self["visual"]

    def get_output_embeddings(self) -> None:
        return None
