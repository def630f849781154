//! Round trips, hostile bytes, forward compatibility and the golden vectors of the wire.

mod compatibility;
mod golden;
mod hostile;
mod round_trip;
mod strategies;
mod values;
