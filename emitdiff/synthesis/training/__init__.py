"""Training the embedded weights: the autoencoder, then the denoiser, then its ControlNet."""
