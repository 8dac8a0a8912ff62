"""Training of any causal model of transformers by ``budgeteer train --model hf:FOLDER``, through TRL's trainer."""
