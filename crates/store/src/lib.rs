//! The storage traits, the pure commit planner and the contract suite that every storage passes.
