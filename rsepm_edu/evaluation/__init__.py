"""How good it is: metrics from one confusion matrix, threshold sweeps, multi-scale inference."""
