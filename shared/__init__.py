"""The contract between the two services, and the few foundations that both stand on."""
