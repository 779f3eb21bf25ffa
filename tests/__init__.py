"""The tests of bn_spec itself: every file guards the module of its name."""
