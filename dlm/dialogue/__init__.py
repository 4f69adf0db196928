"""The interactive format: schema, readers, tokenizer, template, encoding, actions; without JAX."""
