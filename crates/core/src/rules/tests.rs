//! What rules are read as, and what follows from them for rows and people.

mod admission;
mod buckets;
mod demand;
mod explain;
mod forms;
mod oracle;
mod properties;
mod random;
mod refused;
mod rights;
mod testkit;
mod values;
