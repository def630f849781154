//! One table of examples for each strategy.
