"""What transformers calls the config of a kind of model."""

from __future__ import annotations

from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES, model_type_to_module_name


def config_class(model_type: str) -> str | None:
    """The class, as Python shows it; None for a kind that transformers does not have."""
    name = CONFIG_MAPPING_NAMES.get(model_type)
    if name is None:
        return None
    module = model_type_to_module_name(model_type)
    return f"<class 'transformers.models.{module}.configuration_{module}.{name}'>"
