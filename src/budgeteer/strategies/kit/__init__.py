"""The toolbox of strategies: samples, traces, trees of steps, scorers and aggregators."""
