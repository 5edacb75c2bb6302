"""The trainer: learns a GPQ network and writes a model artifact."""
