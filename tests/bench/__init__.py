"""The benchmark: the service against what else one could pick (see __main__)."""
