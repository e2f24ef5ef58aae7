"""The model. Importing this package registers it with transformers' Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from buddygpt.model.configuration import BuddyGPTConfig
from buddygpt.model.context import extend
from buddygpt.model.modeling import BuddyGPTForCausalLM, BuddyGPTModel

AutoConfig.register(BuddyGPTConfig.model_type, BuddyGPTConfig)
AutoModel.register(BuddyGPTConfig, BuddyGPTModel)
AutoModelForCausalLM.register(BuddyGPTConfig, BuddyGPTForCausalLM)

__all__ = ["BuddyGPTConfig", "BuddyGPTForCausalLM", "BuddyGPTModel", "extend"]
