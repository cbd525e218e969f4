"""Where JSON stops: a validated body in, the service's answer out as bytes."""
