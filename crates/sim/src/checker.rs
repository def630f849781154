//! What is judged beside the rows themselves: that things go on, and that nothing grows.

pub(crate) mod atomic;
pub(crate) mod bounded;
pub(crate) mod causal;
pub(crate) mod liveness;
pub(crate) mod waiting;
