"""Tools around the suite: diagnosis, doctor, audit, vectors, scaffold, replay, stored cases."""
