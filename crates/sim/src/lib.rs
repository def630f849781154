//! A deterministic simulator: many replicas, a server, a hostile network, one seed.
