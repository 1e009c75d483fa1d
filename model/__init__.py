"""The mathematics: retina, recurrent circuit, forward propagation, learner. Knows no sockets or processes."""
