"""Transformers of text: a decoder that is GPT-2 and Llama, an encoder that is BERT and RoBERTa, and their folders."""
