//! Changes of whole rows.
